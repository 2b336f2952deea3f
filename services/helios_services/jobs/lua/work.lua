-- What there is to do, and how fast it is done. ARGV: model, queued jobs looked at, ttl_ms of the pace, then stage, chunks,
-- mean seconds of chunks finished since the last call. Called again after a lost reply it counts those chunks twice,
-- which a moving average does not mind.
local model, limit, pace_key = ARGV[1], tonumber(ARGV[2]), at('pace', ARGV[1])
local KEPT = 0.9  -- of the average, by one more chunk

-- jobs and chunks that can be made now; frames per second of the jobs that someone watches; paused jobs
local function tally() return {jobs = 0, chunks = 0, fps = 0, paused = 0} end

local function count(into, id)
  local state, spec, total, done, open_ended, session, priority, paused, stopping, of = unpack(redis.call('HMGET',
    at('job', id), 'state', 'spec', 'chunks_total', 'chunks_done', 'open_ended', 'session', 'priority', 'paused_ms',
    'stopping', 'model'))
  if of ~= model or (state ~= 'queued' and state ~= 'running') then return end
  local left = total - done
  if stopping or (left <= 0 and total ~= '0') then return end
  if paused then
    into.paused = into.paused + 1
    return
  end
  into.jobs = into.jobs + 1
  if open_ended == '1' or session == '1' or priority == 'interactive' then
    into.fps = into.fps + (cjson.decode(spec).params.fps or 0)
  else
    into.chunks = into.chunks + left
  end
end

-- A queued job counts if its account may have one more running.
local rooms = {}
local function may_run(id)
  local _, _, account = place(id)
  rooms[account] = (rooms[account] or room(model, account)) - 1
  return rooms[account] >= 0
end

local queued, running, looked, waiting = tally(), tally(), 0, 0
for _, priority in ipairs(PRIORITIES) do
  local queue = at('queue', model, priority)
  waiting = waiting + redis.call('ZCARD', queue)
  if looked < limit then
    for _, id in ipairs(redis.call('ZRANGE', queue, 0, limit - looked - 1)) do
      looked = looked + 1
      if may_run(id) then count(queued, id) end
    end
  end
end
for _, id in ipairs(redis.call('ZRANGE', at('leases'), 0, -1)) do count(running, id) end
for _, id in ipairs(redis.call('ZRANGE', at('parked'), 0, limit - 1)) do
  if field(id, 'model') == model then running.paused = running.paused + 1 end
end
local scale = looked > 0 and waiting / looked or 1  -- the jobs behind those looked at are like them

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
return {text(queued.jobs * scale), text(queued.chunks * scale), text(running.jobs), text(running.chunks),
        text(queued.paused * scale + running.paused), text(queued.fps * scale + running.fps),
        unpack(redis.call('HGETALL', pace_key))}
