-- ARGV: id, token, lease_ms
allow_at_maxmemory()
if not holds(ARGV[1], ARGV[2]) then return {'lease_lost'} end
redis.call('ZADD', at('leases'), now_ms() + ARGV[3], ARGV[1])
return {'ok'}
