-- Shared by every script. KEYS[1] is the namespace root, `helios:{<namespace>}:`; its hash tag puts every key below it
-- into one cluster slot. The tables TRANSITIONS, LEASED, DEAD_LETTERED and PRIORITIES are prepended from Python.
-- Times are the server's.
local root = KEYS[1]
local function at(...) return root .. table.concat({...}, ':') end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- At maxmemory Redis refuses a script's first growing write, unless the script has written before: a worker must be able
-- to finish what it has begun.
local function allow_at_maxmemory() redis.call('DEL', at('none')) end

local function field(id, name) return redis.call('HGET', at('job', id), name) end

local function set(id, ...) redis.call('HSET', at('job', id), ...) end

local function changed(id)
  redis.call('HINCRBY', at('job', id), 'revision', 1)
  redis.call('PUBLISH', at('changed'), id)
end

-- A worker's last word on a job, so that its repetition is recognised.
local function answered(id, event, token) return field(id, 'answered') == event .. token end
local function answer(id, event, token) set(id, 'answered', event .. token) end

-- The state that `event` leads to, or nil.
local function after(id, event)
  local state = field(id, 'state')
  return state and TRANSITIONS[state] and TRANSITIONS[state][event], state
end

local function holds(id, token)
  return LEASED[field(id, 'state') or ''] and field(id, 'token') == token
end

-- Where a job waits: its model, its priority, and the account that it is counted for.
local function place(id)
  local model, priority, account = unpack(redis.call('HMGET', at('job', id), 'model', 'priority', 'account'))
  return model, priority, account or ''
end

-- Fair sharing: an account's virtual time is the chunks started for it, each over the account's weight. Of the accounts
-- that wait in a priority, the one whose virtual time is least goes first.
local CLOCK = ':clock'  -- the virtual time of the latest chunk's account; no account has a colon in its name

local function virtual_time(model, account) return tonumber(redis.call('HGET', at('share', model), account) or 0) end

local function set_virtual_time(model, account, time)
  redis.call('HSET', at('share', model), account, string.format('%.17g', time))
  for _, priority in ipairs(PRIORITIES) do
    redis.call('ZADD', at('lanes', model, priority), 'XX', string.format('%.17g', time), account)
  end
end

-- Counts a chunk that is about to start.
local function charge(id, ttl_ms)
  local model, _, account = place(id)
  local start = virtual_time(model, account)
  if start > virtual_time(model, CLOCK) then set_virtual_time(model, CLOCK, start) end
  set_virtual_time(model, account, start + 1 / (field(id, 'weight') or 1))
  redis.call('PEXPIRE', at('share', model), ttl_ms)
end

-- Who has had nothing to do starts with those who are being served: idleness saves nothing up.
local function catch_up(model, account)
  local clock = virtual_time(model, CLOCK)
  if virtual_time(model, account) >= clock or redis.call('EXISTS', at('running', model, account)) == 1 then return end
  for _, priority in ipairs(PRIORITIES) do
    if redis.call('EXISTS', at('lane', model, priority, account)) == 1 then return end
  end
  set_virtual_time(model, account, clock)
end

local function enqueue(id, now)
  local model, priority, account = place(id)
  local seq = field(id, 'seq')
  set(id, 'queued_ms', now)
  redis.call('ZADD', at('queue', model, priority), seq, id)
  redis.call('ZADD', at('lane', model, priority, account), seq, id)
  redis.call('ZADD', at('lanes', model, priority), string.format('%.17g', virtual_time(model, account)), account)
  redis.call('PUBLISH', at('queued'), model)
end

local function leave_lane(id, model, priority, account)
  redis.call('ZREM', at('queue', model, priority), id)
  redis.call('ZREM', at('lane', model, priority, account), id)
  if redis.call('EXISTS', at('lane', model, priority, account)) == 0 then
    redis.call('ZREM', at('lanes', model, priority), account)
  end
end

-- Takes a job out of wherever it waits.
local function dequeue(id)
  leave_lane(id, place(id))
  redis.call('ZREM', at('parked'), id)
end

-- How many more jobs of an account may run. Members that do not run (an older release forgets them) leave on the way.
local function room(model, account)
  local limit = tonumber(redis.call('HGET', at('limits'), account) or '')
  if not limit then return math.huge end
  local running = at('running', model, account)
  if redis.call('SCARD', running) >= limit then
    for _, id in ipairs(redis.call('SMEMBERS', running)) do
      if not LEASED[field(id, 'state') or ''] then redis.call('SREM', running, id) end
    end
  end
  return limit - redis.call('SCARD', running)
end

-- Jobs that a release without lanes has put into the queue are given theirs.
local function adopt(model)
  for _, priority in ipairs(PRIORITIES) do
    local queue, laned = at('queue', model, priority), 0
    for _, account in ipairs(redis.call('ZRANGE', at('lanes', model, priority), 0, -1)) do
      laned = laned + redis.call('ZCARD', at('lane', model, priority, account))
    end
    if redis.call('ZCARD', queue) ~= laned then
      for _, id in ipairs(redis.call('ZRANGE', queue, 0, -1)) do
        local _, _, account = place(id)
        if redis.call('ZADD', at('lane', model, priority, account), redis.call('ZSCORE', queue, id), id) == 1 then
          redis.call('ZADD', at('lanes', model, priority), string.format('%.17g', virtual_time(model, account)), account)
        end
      end
    end
  end
end

-- The job that is to be claimed next, of the first `ranks` priorities: its id, and the priority's rank. yielding: an
-- account of which one running job is about to be given back.
local LANES_LOOKED_AT = 1000
local function next_job(model, ranks, yielding)
  for rank = 1, ranks do
    local priority = PRIORITIES[rank]
    for _, account in ipairs(redis.call('ZRANGE', at('lanes', model, priority), 0, LANES_LOOKED_AT - 1)) do
      local lane = at('lane', model, priority, account)
      local id = redis.call('ZRANGE', lane, 0, 0)[1]
      while id and field(id, 'state') ~= 'queued' do  -- what is gone, or went another way, must hold nobody up
        leave_lane(id, model, priority, account)
        id = redis.call('ZRANGE', lane, 0, 0)[1]
      end
      if id then
        if room(model, account) + (account == yielding and 1 or 0) > 0 then return id, rank end
      end
    end
  end
end

-- The job of another that should have this one's worker: of a higher priority, or of the same and of an account that has
-- had less by `quantum` chunks.
local function outranked(id, quantum)
  local model, priority, account = place(id)
  local mine
  for rank, name in ipairs(PRIORITIES) do if name == priority then mine = rank end end
  local other, rank = next_job(model, mine, account)
  if not other then return false end
  if rank < mine then return true end
  local _, _, theirs = place(other)
  return theirs ~= account and virtual_time(model, account) - virtual_time(model, theirs) >= quantum
end

local function unlease(id)
  local model, _, account = place(id)
  set(id, 'worker', '')
  redis.call('HINCRBY', at('job', id), 'token', 1)
  redis.call('ZREM', at('leases'), id)
  redis.call('SREM', at('running', model, account), id)
end

-- Gives a leased job back to the queue, at its old place.
local function release(id, now)
  local state = after(id, 'release')
  set(id, 'state', state)
  unlease(id)
  enqueue(id, now)
  changed(id)
end

-- A job that has to wait for its client is not in the queue; it comes back with the client's wish, or at `look_ms`.
local function unpark(id, now)
  if redis.call('ZREM', at('parked'), id) == 0 then return end
  local model, _, account = place(id)
  catch_up(model, account)
  enqueue(id, now)
end

-- Video time that an account may have in a day (UTC) is taken when a job is submitted, or when an open-ended one starts a
-- chunk; what a job did not make is given back.
local function video_key(account, now) return at('video_ms', account, math.floor(now / 86400000)) end

local function take_video_time(key, ms)
  redis.call('INCRBY', key, ms)
  redis.call('PEXPIRE', key, 2 * 86400000)
end

local function give_back_video_time(id)
  local key, taken, chunk_ms, done =
    unpack(redis.call('HMGET', at('job', id), 'video_key', 'video_ms', 'chunk_ms', 'chunks_done'))
  if not key or key == '' then return end
  local left = taken - chunk_ms * done
  if left > 0 and redis.call('EXISTS', key) == 1 then redis.call('DECRBY', key, left) end
  set(id, 'video_key', '')
end

local function expire_chunks(id, ttl_ms)
  redis.call('PEXPIRE', at('chunks', id), ttl_ms)
  redis.call('PEXPIRE', at('init', id), ttl_ms)
  for index = field(id, 'first_chunk') or 0, (field(id, 'chunks_done') or 0) - 1 do
    redis.call('PEXPIRE', at('fragment', id, index), ttl_ms)
  end
end

-- A dead letter is none any more: what another try would need goes as after any other failure.
local function give_up(id, chunk_ttl_ms)
  redis.call('ZREM', at('dead'), id)
  redis.call('DEL', at('embeds', id), at('checkpoint', id))
  if not field(id, 'state') then return end
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
    if redis.call('ZCARD', at('dead')) >= MAX_DEAD_LETTERS then
      give_up(redis.call('ZRANGE', at('dead'), 0, 0)[1], kept_ms)
    end
    redis.call('ZADD', at('dead'), field(id, 'seq'), id)
    redis.call('PEXPIRE', at('embeds', id), job_ttl_ms)
  else
    redis.call('DEL', at('embeds', id))
    give_back_video_time(id)
  end
  if event == 'succeed' or dead then
    redis.call('PEXPIRE', at('checkpoint', id), chunk_ttl_ms)  -- for jobs that continue this one, or another try
  else
    redis.call('DEL', at('checkpoint', id))
  end
  expire_chunks(id, chunk_ttl_ms)
  redis.call('PEXPIRE', at('prompts', id), job_ttl_ms)
  redis.call('PEXPIRE', at('job', id), job_ttl_ms)
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

-- Takes lapsed leases away: the job goes back to the queue, or fails after too many losses without progress.
local function reclaim(now, max_attempts, job_ttl_ms, chunk_ttl_ms)
  local lapsed = redis.call('ZRANGEBYSCORE', at('leases'), '-inf', now, 'LIMIT', 0, 100)
  for _, id in ipairs(lapsed) do
    if not LEASED[field(id, 'state') or ''] then
      redis.call('ZREM', at('leases'), id)
    else
      local losses = redis.call('HINCRBY', at('job', id), 'losses', 1)
      if losses >= max_attempts then
        fail(id, 'fail', 'WORKER_LOST', 'the worker was lost ' .. losses .. ' times in a row without finishing a chunk',
             now, job_ttl_ms, chunk_ttl_ms)
      else
        release(id, now)
      end
    end
  end
  return lapsed
end

-- Ends jobs whose time is over, wherever they are: a worker that has one finds its lease gone.
local function expire(now, job_ttl_ms, chunk_ttl_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', at('deadlines'), '-inf', now, 'LIMIT', 0, 100)) do
    local state, deadline, start_by = unpack(redis.call('HMGET', at('job', id), 'state', 'deadline_ms', 'start_by_ms'))
    if not after(id, 'expire') then
      redis.call('ZREM', at('deadlines'), id)
    elseif (tonumber(deadline or '') or math.huge) <= now then
      fail(id, 'expire', 'DEADLINE_EXCEEDED', 'the job had not ended by its deadline', now, job_ttl_ms, chunk_ttl_ms)
    elseif state == 'queued' and not field(id, 'started_ms') and (tonumber(start_by or '') or math.huge) <= now then
      local message = 'no worker had started the job within its queue timeout'
      fail(id, 'expire', 'QUEUE_TIMEOUT', message, now, job_ttl_ms, chunk_ttl_ms)
    else  -- it has started in time
      if tonumber(deadline or '') then redis.call('ZADD', at('deadlines'), deadline, id)
      else redis.call('ZREM', at('deadlines'), id) end
    end
  end
end

-- Looks after jobs that wait for their clients: whose client has gone, or been away too long, gets a worker to end it.
local function revisit(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', at('parked'), '-inf', now, 'LIMIT', 0, 100)) do
    local left = field(id, 'session') == '1' and redis.call('PTTL', at('session', id)) or 0
    if left > 0 and now < tonumber(field(id, 'parked_until_ms')) then
      redis.call('ZADD', at('parked'), math.min(now + left, field(id, 'parked_until_ms')), id)
    else
      unpark(id, now)
    end
  end
end

-- What time alone brings about.
local function sweep(now, max_attempts, job_ttl_ms, chunk_ttl_ms)
  for _, id in ipairs(redis.call('ZRANDMEMBER', at('dead'), 10)) do
    if redis.call('EXISTS', at('job', id)) == 0 then redis.call('ZREM', at('dead'), id) end
  end
  expire(now, job_ttl_ms, chunk_ttl_ms)
  revisit(now)
  return reclaim(now, max_attempts, job_ttl_ms, chunk_ttl_ms)
end

-- What an account has uploaded, by file name: when each expires, and its bytes; those of all together under TOTAL.
local TOTAL = ':total'  -- no file has a colon in its name

local function drop_upload(account, name)
  redis.call('ZREM', at('uploads', account), name)
  local bytes = redis.call('HGET', at('upload_bytes', account), name)
  if not bytes then return end
  redis.call('HDEL', at('upload_bytes', account), name)
  redis.call('HINCRBY', at('upload_bytes', account), TOTAL, -bytes)
end

local function expire_upload(account, name, expire)
  redis.call('ZADD', at('uploads', account), expire, name)
  local last = redis.call('ZRANGE', at('uploads', account), -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIREAT', at('uploads', account), last)
  redis.call('PEXPIREAT', at('upload_bytes', account), last)
end

local function count_upload(account, name, bytes, expire)
  if account == '' then return end
  drop_upload(account, name)
  redis.call('HSET', at('upload_bytes', account), name, bytes)
  redis.call('HINCRBY', at('upload_bytes', account), TOTAL, bytes)
  expire_upload(account, name, expire)
end
