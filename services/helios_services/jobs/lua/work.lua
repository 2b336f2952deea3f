-- What there is to do, and how fast it is done. ARGV: model, queued jobs looked at, ttl_ms of the pace, then stage, chunks,
-- mean seconds of chunks finished since the last call. Called again after a lost reply it counts those chunks twice,
-- which a moving average does not mind.
local model, looks, pace_key = ARGV[1], tonumber(ARGV[2]), at('pace', ARGV[1])
local KEPT = 0.9  -- of the average, by one more chunk
local RUNNING = 1000  -- leases looked at: more than the slots of all dispatchers

-- jobs and chunks that can be made now; frames per second of the jobs that someone watches; paused jobs
local function tally() return {jobs = 0, chunks = 0, fps = 0, paused = 0} end

local function count(into, id, weight)
  local state, fps, total, done, open_ended, session, priority, paused, stopping, of = unpack(redis.call('HMGET',
    at('job', id), 'state', 'fps', 'chunks_total', 'chunks_done', 'open_ended', 'session', 'priority', 'paused_ms',
    'stopping', 'model'))
  if of ~= model or (state ~= 'queued' and state ~= 'running') then return end
  local left = total - done
  if stopping or (left <= 0 and total ~= '0') then return end
  if paused then
    into.paused = into.paused + weight
    return
  end
  into.jobs = into.jobs + weight
  if open_ended == '1' or session == '1' or priority == 'interactive' then
    into.fps = into.fps + (fps or DEFAULT_FPS) * weight
  else
    into.chunks = into.chunks + left * weight
  end
end

-- Of every account in line as many queued jobs count as may run. The front of its part of the queue stands for the rest,
-- and the accounts in front for those behind.
local queued, running, rooms = tally(), tally(), {}
local lines = {}
for _, priority in ipairs(PRIORITIES) do
  local line = redis.call('ZRANGE', at('lanes', model, priority), 0, looks - 1)
  if #line > 0 then lines[#lines + 1] = {priority, line, redis.call('ZCARD', at('lanes', model, priority)) / #line} end
end
local accounts = 0
for _, line in ipairs(lines) do accounts = accounts + #line[2] end
local each = math.max(1, math.floor(looks / math.max(accounts, 1)))
for _, line in ipairs(lines) do
  local priority, names, scale = unpack(line)
  for _, account in ipairs(names) do
    local lane = at('lane', model, priority, account)
    rooms[account] = rooms[account] or room(model, account)
    local may = math.min(redis.call('ZCARD', lane), rooms[account])
    rooms[account] = rooms[account] - may
    local front = may > 0 and redis.call('ZRANGE', lane, 0, math.min(may, each) - 1) or {}
    for _, id in ipairs(front) do count(queued, id, scale * may / #front) end
  end
end
for _, id in ipairs(redis.call('ZRANGE', at('leases'), 0, RUNNING - 1)) do count(running, id, 1) end
local parked, of_model = redis.call('ZRANGE', at('parked'), 0, looks - 1), 0
for _, id in ipairs(parked) do if field(id, 'model') == model then of_model = of_model + 1 end end
if #parked > 0 then running.paused = running.paused + of_model * redis.call('ZCARD', at('parked')) / #parked end

if #ARGV > 3 then
  allow_at_maxmemory()
  for n = 4, #ARGV, 3 do
    local old = tonumber(redis.call('HGET', pace_key, ARGV[n]) or ARGV[n + 2])
    local kept = KEPT ^ tonumber(ARGV[n + 1])
    redis.call('HSET', pace_key, ARGV[n], string.format('%.6f', kept * old + (1 - kept) * ARGV[n + 2]))
  end
  redis.call('PEXPIRE', pace_key, ARGV[3])
end
local function text(number) return string.format('%.6f', number) end
return {text(queued.jobs), text(queued.chunks), text(running.jobs), text(running.chunks),
        text(queued.paused + running.paused), text(queued.fps + running.fps),
        unpack(redis.call('HGETALL', pace_key))}
