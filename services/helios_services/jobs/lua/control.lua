-- ARGV: id, action (pause, resume or stop)
local id, action = ARGV[1], ARGV[2]
allow_at_maxmemory()
local state = field(id, 'state')
if not state then return {'not_found'} end
if state ~= 'queued' and state ~= 'running' then return {'invalid', state} end
if action == 'pause' then
  redis.call('HSETNX', at('job', id), 'paused_ms', now_ms())
else
  redis.call('HDEL', at('job', id), 'paused_ms')
  unpark(id, now_ms())
end
if action == 'stop' then set(id, 'stopping', 1) end
changed(id)
return {'ok'}
