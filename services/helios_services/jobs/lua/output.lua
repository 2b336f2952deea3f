-- What an account's jobs have made and the store still has, to the byte: fragments, init segments, states, embeddings of
-- prompts. CHUNK_BYTES stand for a chunk's record, and for what Redis takes besides its fragment. `output_until` has an
-- account's ended jobs by the time that theirs expires, `output_expiring` the accounts by the first of these times.
local CHUNK_BYTES = 512
local SHED = 4  -- jobs whose output one call drops

local function output_of(account) return tonumber(redis.call('HGET', at('output', account), TOTAL) or 0) end

local function fragment_bytes(id, index) return redis.call('STRLEN', at('fragment', id, index)) + CHUNK_BYTES end

-- Of the state that a job has of its own: that of the job it continues is counted with its record.
local function state_bytes(id) return field(id, 'copied_bytes') and 0 or redis.call('STRLEN', at('checkpoint', id)) end

local function embeds_bytes(id)
  local bytes = 0
  for _, key in ipairs(redis.call('HKEYS', at('embeds', id))) do bytes = bytes + redis.call('HSTRLEN', at('embeds', id), key) end
  return bytes
end

-- Counted so far; of a job that an older release has begun, what is there.
local function output_bytes(id, account)
  local counted = redis.call('HGET', at('output', account), id)
  if counted then return tonumber(counted) end
  local bytes = redis.call('STRLEN', at('init', id)) + state_bytes(id) + embeds_bytes(id)
  for index = field(id, 'first_chunk') or 0, (field(id, 'chunks_done') or 0) - 1 do bytes = bytes + fragment_bytes(id, index) end
  return bytes
end

-- Counts that a job's output grows or shrinks; to be called before it does.
local function change_output(id, change)
  local account = field(id, 'account') or ''
  count_in(at('output', account), id, output_bytes(id, account) + change)
end

local function keep_output_until(id, expire)
  local account = field(id, 'account') or ''
  if redis.call('HEXISTS', at('output', account), id) == 0 then return end
  redis.call('ZADD', at('output_until', account), expire, id)
  redis.call('ZADD', at('output_expiring'), 'LT', expire, account)
end

-- Forgets an account's output that has expired. Returns how much there was to forget, in jobs.
local function settle_output(account, now)
  local due = redis.call('ZRANGEBYSCORE', at('output_until', account), '-inf', now, 'LIMIT', 0, SETTLED)
  for _, id in ipairs(due) do
    redis.call('ZREM', at('output_until', account), id)
    count_in(at('output', account), id, 0)
  end
  local first = redis.call('ZRANGE', at('output_until', account), 0, 0, 'WITHSCORES')[2]
  if first then redis.call('ZADD', at('output_expiring'), first, account)
  else redis.call('ZREM', at('output_expiring'), account) end
  return #due
end

local function shed(account, id)
  for index = field(id, 'first_chunk') or 0, (field(id, 'chunks_done') or 0) - 1 do redis.call('DEL', at('fragment', id, index)) end
  redis.call('DEL', at('chunks', id), at('init', id), at('checkpoint', id), at('embeds', id))
  redis.call('ZREM', at('output_until', account), id)
  count_in(at('output', account), id, 0)
end

-- Whether an account's jobs may make so many bytes more. Output of ended jobs goes early for them, the first to expire
-- first; that of dead letters stays, and what was forgotten with its record is left to expire.
local function make_output_room(account, bytes, limit, now)
  if output_of(account) + bytes <= limit then return true end
  settle_output(account, now)
  local dropped = 0
  for _, id in ipairs(redis.call('ZRANGE', at('output_until', account), 0, EVICTED - 1)) do
    if output_of(account) + bytes <= limit or dropped == SHED then break end
    if field(id, 'ended_ms') and not redis.call('ZSCORE', at('dead'), id) then
      shed(account, id)
      dropped = dropped + 1
    end
  end
  return output_of(account) + bytes <= limit
end
