-- Gives up a dead letter: what another try would need expires as after any other failure. ARGV: id, nonce,
-- chunk_ttl_ms
local id, nonce, chunk_ttl_ms = unpack(ARGV)
allow_at_maxmemory()
if field(id, 'purged') == nonce then return {'ok'} end
local state = field(id, 'state')
if not state then return {'not_found'} end
if redis.call('ZREM', at('dead'), id) == 0 then return {'not_dead', state} end
set(id, 'purged', nonce)
redis.call('DEL', at('embeds', id), at('checkpoint', id))
redis.call('PEXPIRE', at('chunks', id), chunk_ttl_ms)
redis.call('PEXPIRE', at('init', id), chunk_ttl_ms)
for index = field(id, 'first_chunk') or 0, field(id, 'chunks_done') - 1 do
  redis.call('PEXPIRE', at('fragment', id, index), chunk_ttl_ms)
end
give_back_video_time(id)
changed(id)
return {'ok'}
