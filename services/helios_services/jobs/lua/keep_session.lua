-- ARGV: id, grace_ms
local id = ARGV[1]
allow_at_maxmemory()
local state = field(id, 'state')
if not state then return {'not_found'} end
if field(id, 'session') ~= '1' then return {'no_session'} end
if redis.call('PEXPIRE', at('session', id), ARGV[2]) == 1 then return {'ok'} end
return {'lapsed'}
