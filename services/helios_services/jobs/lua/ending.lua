-- Video time that an account may have in a day (UTC) is taken when a job is submitted, or when an open-ended one starts a
-- chunk. What the chunks that never started would have been charged is given back.
local function video_key(account, now) return at('video_ms', account, math.floor(now / 86400000)) end

local function take_video_time(key, ms)
  redis.call('INCRBY', key, ms)
  redis.call('PEXPIRE', key, 2 * 86400000)
end

local function give_back_video_time(id)
  local key, taken, started, done =
    unpack(redis.call('HMGET', at('job', id), 'video_key', 'video_ms', 'chunks_started', 'chunks_done'))
  if not key or key == '' then return end
  started = math.max(started or 0, done or 0)
  local left = taken - (started > 0 and chunk_charge(id, 0) + chunk_charge(id, 1) * (started - 1) or 0)
  if left > 0 and redis.call('EXISTS', key) == 1 then redis.call('DECRBY', key, left) end
  set(id, 'video_key', '')
end

local function expire_chunks(id, ttl_ms)
  redis.call('PEXPIRE', at('chunks', id), ttl_ms)
  redis.call('PEXPIRE', at('init', id), ttl_ms)
  for index = field(id, 'first_chunk') or 0, (field(id, 'chunks_done') or 0) - 1 do
    redis.call('PEXPIRE', at('fragment', id, index), ttl_ms)
  end
  keep_output_until(id, now_ms() + ttl_ms)
end

local function drop_embeds(id)
  if redis.call('EXISTS', at('embeds', id)) == 0 then return end
  change_output(id, -embeds_bytes(id))
  redis.call('DEL', at('embeds', id))
end

local function drop_state(id)
  if redis.call('EXISTS', at('checkpoint', id)) == 0 then return end
  change_output(id, -state_bytes(id))
  redis.call('DEL', at('checkpoint', id))
end

local function leave_dead(id)
  redis.call('ZREM', at('dead'), id)
  redis.call('ZREM', at('tenant_dead', field(id, 'tenant') or ''), id)
end

-- A dead letter is none any more: what another try would need goes as after any other failure.
local function give_up(id, chunk_ttl_ms)
  leave_dead(id)
  if not field(id, 'state') then
    redis.call('DEL', at('embeds', id), at('checkpoint', id))
    return
  end
  drop_embeds(id)
  drop_state(id)
  own_state(id)
  drop_request(id)
  expire_chunks(id, chunk_ttl_ms)
  give_back_video_time(id)
end

-- Webhooks wait in a lane for each tenant and each place that it has called, so that one that hangs holds up no other.
-- `webhook_lanes` has the lanes by their next call.
local function see_to_webhooks(lane)
  local next_ms = redis.call('ZRANGE', at('webhooks', lane), 0, 0, 'WITHSCORES')[2]
  if next_ms then redis.call('ZADD', at('webhook_lanes'), next_ms, lane)
  else redis.call('ZREM', at('webhook_lanes'), lane) end
end

-- Ends a job: `event` is succeed, fail, cancel or expire. From here on everything of it expires. What failed through no
-- fault of its request is kept whole for as long as its record, to be queued again.
local function finish(id, event, now, job_ttl_ms, chunk_ttl_ms)
  local state, before = after(id, event)
  if before == 'queued' then dequeue(id) end
  local kept_ms, dead = chunk_ttl_ms, event == 'fail' and DEAD_LETTERED[field(id, 'error_reason') or '']
  set(id, 'state', state, 'ended_ms', now)
  unlease(id)
  redis.call('ZREM', at('deadlines'), id)
  redis.call('DEL', at('session', id))
  if dead then
    chunk_ttl_ms = job_ttl_ms
    local of_tenant = at('tenant_dead', field(id, 'tenant') or '')
    if redis.call('ZCARD', of_tenant) >= MAX_DEAD_LETTERS then
      local oldest = redis.call('ZRANGE', of_tenant, 0, 0)[1]
      redis.call('ZREM', of_tenant, oldest)
      give_up(oldest, kept_ms)
    end
    redis.call('ZADD', at('dead'), field(id, 'seq'), id)
    redis.call('ZADD', of_tenant, field(id, 'seq'), id)
    redis.call('PEXPIRE', at('embeds', id), job_ttl_ms)
  else
    drop_embeds(id)
    give_back_video_time(id)
  end
  if event == 'succeed' or dead then
    redis.call('PEXPIRE', at('checkpoint', id), chunk_ttl_ms)  -- for jobs that continue this one, or another try
  else
    drop_state(id)
    own_state(id)
    drop_request(id)
  end
  expire_chunks(id, chunk_ttl_ms)
  redis.call('PEXPIRE', at('prompts', id), job_ttl_ms)
  redis.call('PEXPIRE', at('job', id), job_ttl_ms)
  keep_until(id, now + job_ttl_ms)
  local idempotency_key = field(id, 'idempotency_key')
  if idempotency_key ~= '' then redis.call('PEXPIRE', at('idempotency', idempotency_key), job_ttl_ms) end
  redis.call('HINCRBY', at('ended'), state, 1)
  local lane = field(id, 'webhook')
  if lane and lane ~= '' then
    redis.call('ZADD', at('webhooks', lane), now, id .. ':' .. now)
    see_to_webhooks(lane)
  end
  changed(id)
end

local function fail(id, event, reason, message, now, job_ttl_ms, chunk_ttl_ms)
  set(id, 'error_reason', reason, 'error_message', message)
  finish(id, event, now, job_ttl_ms, chunk_ttl_ms)
end
