-- Fair sharing: an account's virtual time is the work started for it, in chunks of the default size and steps, over the
-- account's weight. Of the accounts that wait in a priority, the one whose virtual time is least goes first.
local CLOCK = ':clock'  -- the virtual time of the latest chunk's account; no account has a colon in its name
local LOOKED_AT = 20  -- places in line that turn out to be stale, looked at by one call

local function exact(number) return string.format('%.17g', number) end

local function virtual_time(model, account) return tonumber(redis.call('HGET', at('share', model), account) or 0) end

local function set_virtual_time(model, account, time)
  redis.call('HSET', at('share', model), account, exact(time))
  for _, priority in ipairs(PRIORITIES) do
    redis.call('ZADD', at('lanes', model, priority), 'XX', exact(time), account)
  end
end

-- What a chunk is charged, in milliseconds of default video. An older release has charged its play time.
local function chunk_charge(id, index)
  local first_ms, chunk_ms = unpack(redis.call('HMGET', at('job', id), 'first_chunk_ms', 'chunk_ms'))
  return tonumber(index == 0 and first_ms or chunk_ms or 0), first_ms and true or false
end

-- Counts a chunk that is about to start.
local function charge(id, index, ttl_ms)
  local model, _, account = place(id)
  local ms, by_work = chunk_charge(id, index)
  local start = virtual_time(model, account)
  if start > virtual_time(model, CLOCK) then set_virtual_time(model, CLOCK, start) end
  set_virtual_time(model, account, start + (by_work and ms / CHUNK_MS or 1) / (field(id, 'weight') or 1))
  redis.call('PEXPIRE', at('share', model), ttl_ms)
end

-- How many more jobs of an account may run.
local function room(model, account)
  local limit = tonumber(redis.call('HGET', at('limits'), account) or '')
  return limit and limit - redis.call('SCARD', at('running', model, account)) or math.huge
end

-- An account with queued jobs stands in line, in `lanes`, or is in `barred` while it has as many running as it may.
local function line_up(model, account)
  local free, waits = room(model, account) > 0, false
  for _, priority in ipairs(PRIORITIES) do
    if redis.call('EXISTS', at('lane', model, priority, account)) == 0 then
      redis.call('ZREM', at('lanes', model, priority), account)
    else
      waits = true
      if free then redis.call('ZADD', at('lanes', model, priority), exact(virtual_time(model, account)), account)
      else redis.call('ZREM', at('lanes', model, priority), account) end
    end
  end
  redis.call(waits and not free and 'SADD' or 'SREM', at('barred', model), account)
end

-- Looks after a few barred accounts: a process of an older release may have ended what they waited for.
local function look_after_barred(model)
  for _, account in ipairs(redis.call('SRANDMEMBER', at('barred', model), 2)) do
    local running = at('running', model, account)
    for _, id in ipairs(redis.call('SRANDMEMBER', running, 5)) do
      if not LEASED[field(id, 'state') or ''] then redis.call('SREM', running, id) end
    end
    line_up(model, account)
  end
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
  line_up(model, account)
  redis.call('PUBLISH', at('queued'), model)
end

local function leave_lane(id, model, priority, account)
  redis.call('ZREM', at('queue', model, priority), id)
  redis.call('ZREM', at('lane', model, priority, account), id)
end

-- Takes a job out of wherever it waits.
local function dequeue(id)
  local model, priority, account = place(id)
  leave_lane(id, model, priority, account)
  line_up(model, account)
  redis.call('ZREM', at('parked'), id)
end

-- The job that is to be claimed next, of the first `ranks` priorities: its id, and the priority's rank.
local function next_job(model, ranks)
  local looked = 0
  for rank = 1, ranks do
    local priority = PRIORITIES[rank]
    local account = redis.call('ZRANGE', at('lanes', model, priority), 0, 0)[1]
    while account and looked < LOOKED_AT do
      local id = redis.call('ZRANGE', at('lane', model, priority, account), 0, 0)[1]
      local queued = id and field(id, 'state') == 'queued'
      if queued and room(model, account) > 0 then return id, rank end
      if id and not queued then leave_lane(id, model, priority, account) end  -- gone, or went another way
      line_up(model, account)
      looked = looked + 1
      account = redis.call('ZRANGE', at('lanes', model, priority), 0, 0)[1]
    end
  end
end

-- Whether another job should have this one's worker: of a higher priority, or of the same and of an account that has had
-- less by `quantum` chunks.
local function outranked(id, quantum)
  local model, priority, account = place(id)
  local mine
  for rank, name in ipairs(PRIORITIES) do if name == priority then mine = rank end end
  local other, rank = next_job(model, mine)
  if other and rank < mine then return true end
  if room(model, account) + 1 > 0 then  -- a more urgent one of its own could run in its place
    for better = 1, mine - 1 do
      if redis.call('EXISTS', at('lane', model, PRIORITIES[better], account)) == 1 then return true end
    end
  end
  if not other then return false end
  local _, _, theirs = place(other)
  return theirs ~= account and virtual_time(model, account) - virtual_time(model, theirs) >= quantum
end

local function unlease(id)
  local model, _, account = place(id)
  local worker = field(id, 'worker') or ''
  if worker ~= '' then redis.call('SREM', at('held', worker), id) end
  set(id, 'worker', '')
  redis.call('HINCRBY', at('job', id), 'token', 1)
  redis.call('ZREM', at('leases'), id)
  if redis.call('SREM', at('running', model, account), id) == 1 then line_up(model, account) end
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
