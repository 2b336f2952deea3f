-- ARGV: id, token
allow_at_maxmemory()
if answered(ARGV[1], 'release', ARGV[2]) then return {'ok'} end
if not holds(ARGV[1], ARGV[2]) then return {'lease_lost'} end
redis.call('HINCRBY', at('job', ARGV[1]), 'attempts', -1)
answer(ARGV[1], 'release', ARGV[2])
release(ARGV[1], now_ms())
return {'ok'}
