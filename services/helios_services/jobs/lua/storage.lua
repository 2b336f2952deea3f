-- What the records of an account take of the store, to the byte, and what has to go for new ones. A record is the request,
-- its summary and its prompt updates; RECORD_BYTES stand for the rest, which is much the same for every job,
-- ENTRY_BYTES for what Redis takes besides an update's text.
local RECORD_BYTES, ENTRY_BYTES = 4096, 64
local SETTLED, EVICTED = 20, 64  -- records looked at by one call
local TOTAL = ':total'  -- no job's id and no file has a colon

local function stored(account) return tonumber(redis.call('HGET', at('storage', account), TOTAL) or 0) end

-- Counts a job in a hash with so many bytes; with 0 no more.
local function count_in(key, id, bytes)
  local change = bytes - tonumber(redis.call('HGET', key, id) or 0)
  if change == 0 then return end
  if bytes > 0 then redis.call('HSET', key, id, bytes) else redis.call('HDEL', key, id) end
  if redis.call('HINCRBY', key, TOTAL, change) == 0 then redis.call('DEL', key) end
end

-- Counts a job's record.
local function count_bytes(id, account, bytes) count_in(at('storage', account), id, bytes) end

-- Counts that a record has grown or shrunk. One that an older release has written is not counted yet.
local function change_bytes(id, change)
  local account = field(id, 'account') or ''
  local bytes = tonumber(redis.call('HGET', at('storage', account), id) or '')
  if bytes then count_bytes(id, account, bytes + change) end
end

local function length(id, name) return redis.call('HSTRLEN', at('job', id), name) end

local function record_bytes(id)
  return length(id, 'spec') + length(id, 'summary') + 2 * length(id, 'idempotency_key') + length(id, 'trace') + RECORD_BYTES
end

-- A job begins with the state of the one that it continues; that copy is counted until the job has a state of its own.
local function own_state(id)
  local copied = tonumber(field(id, 'copied_bytes') or '')
  if not copied then return end
  redis.call('HDEL', at('job', id), 'copied_bytes')
  change_bytes(id, -copied)
end

-- Of a request that nobody will run (again) the summary stays.
local function drop_request(id)
  local summary = field(id, 'summary')
  if not summary then return end  -- written by an older release
  local freed = length(id, 'spec') - #summary + tonumber(field(id, 'update_bytes') or 0)
  set(id, 'spec', summary, 'updates', 0, 'update_bytes', 0)
  redis.call('DEL', at('prompts', id))
  if freed > 0 then change_bytes(id, -freed) end
end

-- `kept` has an account's ended jobs by the end of their records, `expiring` the accounts by the first of these.
local function member(id) return (field(id, 'tenant') or '') .. ':' .. id end

local function keep_until(id, expire)
  local account = field(id, 'account') or ''
  redis.call('ZADD', at('kept', account), expire, member(id))
  redis.call('ZADD', at('expiring'), 'LT', expire, account)
end

-- A record that has expired, or that goes early, leaves every list and the count.
local function forget(account, entry)
  local tenant, id = string.match(entry, '^([^:]*):(.*)$')
  redis.call('ZREM', at('kept', account), entry)
  if field(id, 'state') and not field(id, 'ended_ms') then return end  -- queued again by a process of an older release
  local key = field(id, 'idempotency_key') or ''
  if key ~= '' and redis.call('GET', at('idempotency', key)) == id then redis.call('DEL', at('idempotency', key)) end
  redis.call('DEL', at('job', id), at('prompts', id))
  redis.call('ZREM', at('index'), id)
  redis.call('ZREM', at('tenant', tenant), id)
  redis.call('ZREM', at('dead'), id)
  redis.call('ZREM', at('tenant_dead', tenant), id)
  count_bytes(id, account, 0)
end

-- Forgets an account's records that have expired. Returns how many.
local function settle(account, now)
  local due = redis.call('ZRANGEBYSCORE', at('kept', account), '-inf', now, 'LIMIT', 0, SETTLED)
  for _, entry in ipairs(due) do forget(account, entry) end
  local _, first = unpack(redis.call('ZRANGE', at('kept', account), 0, 0, 'WITHSCORES'))
  if first then redis.call('ZADD', at('expiring'), first, account) else redis.call('ZREM', at('expiring'), account) end
  return #due
end

-- Whether an account may store so many bytes more. Records of its ended jobs go early for them, the oldest end first;
-- dead letters stay.
local function make_room(account, bytes, limit, now)
  settle(account, now)
  if stored(account) + bytes <= limit then return true end
  for _, entry in ipairs(redis.call('ZRANGE', at('kept', account), 0, EVICTED - 1)) do
    local id = string.match(entry, '^[^:]*:(.*)$')
    if not redis.call('ZSCORE', at('dead'), id) then forget(account, entry) end
    if stored(account) + bytes <= limit then return true end
  end
  return false
end
