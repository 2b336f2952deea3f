-- Shared by every script. KEYS[1] is the namespace root, `helios:{<namespace>}:`; its hash tag puts every key below it
-- into one cluster slot. Python prepends what is written in capitals and not found here (scripts.py).
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

-- Refuses the script at maxmemory, before it has written anything: after a first write Redis would let it go on.
local function refuse_at_maxmemory()
  redis.call('SET', at('none'), '')
  redis.call('DEL', at('none'))
end

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

-- Chunks that a session may be ahead of its client: of the viewer, where the client says what that has seen, else of what
-- the client was sent, which may be as much as is kept.
local function session_lead(id, most)
  return math.min(tonumber(field(id, 'lead') or most), tonumber(most))
end
