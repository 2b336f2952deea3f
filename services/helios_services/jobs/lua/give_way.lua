-- Gives a job back to the queue if another should have its worker. ARGV: id, token, fair quantum (chunks)
local id, token = ARGV[1], ARGV[2]
allow_at_maxmemory()
if answered(id, 'release', token) then return {'ok'} end
if not holds(id, token) then return {'lease_lost'} end
if not outranked(id, tonumber(ARGV[3])) then return {'kept'} end
redis.call('HINCRBY', at('job', id), 'attempts', -1)
answer(id, 'release', token)
release(id, now_ms())
return {'ok'}
