-- ARGV: id, grace_ms
local id = ARGV[1]
allow_at_maxmemory()
local state = field(id, 'state')
if not state then return {'not_found'} end
if field(id, 'session') ~= '1' then return {'no_session'} end
if field(id, 'stopping') or field(id, 'ended_ms') then return {'lapsed'} end
-- a key that has expired comes back, unless a worker has seen that it was gone: Redis may have been away for longer
redis.call('SET', at('session', id), 1, 'PX', ARGV[2])
return {'ok'}
