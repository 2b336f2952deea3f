-- Shared by every script. KEYS[1] is the namespace root, `helios:{<namespace>}:`; its hash tag puts every key below it
-- into one cluster slot. The transition table TRANSITIONS is prepended from jobs/state.py. Times are the server's.
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

local function queue_of(id) return at('queue', field(id, 'model'), field(id, 'priority')) end

local function enqueue(id, now)
  set(id, 'queued_ms', now)
  redis.call('ZADD', queue_of(id), field(id, 'seq'), id)
  redis.call('PUBLISH', at('queued'), field(id, 'model'))
end

-- Gives a leased job back to the queue, at its old place.
local function release(id, now)
  local state = after(id, 'release')
  set(id, 'state', state, 'worker', '')
  redis.call('HINCRBY', at('job', id), 'token', 1)
  redis.call('ZREM', at('leases'), id)
  enqueue(id, now)
  changed(id)
end

-- Ends a job: `event` is succeed, fail or cancel. From here on everything of it expires.
local function finish(id, event, now, job_ttl_ms, chunk_ttl_ms)
  local state, before = after(id, event)
  if before == 'queued' then redis.call('ZREM', queue_of(id), id) end
  set(id, 'state', state, 'ended_ms', now)
  redis.call('HINCRBY', at('job', id), 'token', 1)
  redis.call('ZREM', at('leases'), id)
  redis.call('DEL', at('embeds', id), at('session', id))
  if event == 'succeed' then
    redis.call('PEXPIRE', at('checkpoint', id), chunk_ttl_ms)  -- for jobs that continue this one
  else
    redis.call('DEL', at('checkpoint', id))
  end
  redis.call('PEXPIRE', at('chunks', id), chunk_ttl_ms)
  redis.call('PEXPIRE', at('init', id), chunk_ttl_ms)
  for index = field(id, 'first_chunk') or 0, field(id, 'chunks_done') - 1 do
    redis.call('PEXPIRE', at('fragment', id, index), chunk_ttl_ms)
  end
  redis.call('PEXPIRE', at('prompts', id), job_ttl_ms)
  redis.call('PEXPIRE', at('job', id), job_ttl_ms)
  local idempotency_key = field(id, 'idempotency_key')
  if idempotency_key ~= '' then redis.call('PEXPIRE', at('idempotency', idempotency_key), job_ttl_ms) end
  redis.call('HINCRBY', at('ended'), state, 1)
  changed(id)
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
        set(id, 'error_reason', 'WORKER_LOST', 'error_message',
            'the worker was lost ' .. losses .. ' times in a row without finishing a chunk')
        finish(id, 'fail', now, job_ttl_ms, chunk_ttl_ms)
      else
        release(id, now)
      end
    end
  end
  return lapsed
end
