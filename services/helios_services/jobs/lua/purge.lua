-- Gives up a dead letter: what another try would need expires as after any other failure. ARGV: id, chunk_ttl_ms
local id = ARGV[1]
allow_at_maxmemory()
local state = field(id, 'state')
if not state then return {'not_found'} end
if redis.call('ZREM', at('dead'), id) == 0 then return {'not_dead', state} end
redis.call('DEL', at('embeds', id), at('checkpoint', id))
redis.call('PEXPIRE', at('chunks', id), ARGV[2])
redis.call('PEXPIRE', at('init', id), ARGV[2])
for index = field(id, 'first_chunk') or 0, field(id, 'chunks_done') - 1 do
  redis.call('PEXPIRE', at('fragment', id, index), ARGV[2])
end
give_back_video_time(id)
changed(id)
return {'ok'}
