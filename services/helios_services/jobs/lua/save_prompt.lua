-- ARGV: id, token, embedding
allow_at_maxmemory()
if not holds(ARGV[1], ARGV[2]) then return {'lease_lost'} end
redis.call('SET', at('prompt', ARGV[1]), ARGV[3])
return {'ok'}
