-- Gives up a dead letter: what another try would need expires as after any other failure. ARGV: id, nonce,
-- chunk_ttl_ms
local id, nonce, chunk_ttl_ms = unpack(ARGV)
allow_at_maxmemory()
if field(id, 'purged') == nonce then return {'ok'} end
local state = field(id, 'state')
if not state then return {'not_found'} end
if not redis.call('ZSCORE', at('dead'), id) then return {'not_dead', state} end
set(id, 'purged', nonce)
give_up(id, chunk_ttl_ms)
changed(id)
return {'ok'}
