-- ARGV: id, token, index, prompt updates known to the worker, pause_limit_ms
local id, token, index = ARGV[1], ARGV[2], tonumber(ARGV[3])
allow_at_maxmemory()
if not holds(id, token) then return {'lease_lost'} end
if field(id, 'session') == '1' and redis.call('EXISTS', at('session', id)) == 0 then set(id, 'stopping', 1) end
-- a pause counts from the time that a worker has the job
local paused = tonumber(field(id, 'paused_ms') or '')
if paused and now_ms() - math.max(paused, tonumber(field(id, 'started_ms'))) > tonumber(ARGV[5]) then set(id, 'stopping', 1) end
if field(id, 'stopping') then
  if tonumber(field(id, 'chunks_total')) ~= index then
    set(id, 'chunks_total', index)
    changed(id)
  end
  return {'stopped'}
end
if paused then return {'paused'} end
if index >= tonumber(field(id, 'chunks_started') or 0) then set(id, 'chunks_started', index + 1) end
return {'ok', unpack(redis.call('LRANGE', at('prompts', id), ARGV[4], -1))}
