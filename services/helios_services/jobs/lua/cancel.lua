-- ARGV: id, job_ttl_ms, chunk_ttl_ms
local id = ARGV[1]
allow_at_maxmemory()
local state, before = after(id, 'cancel')
if not before then return {'not_found'} end
if before == 'cancelled' then return {'ok'} end
if not state then return {'invalid', before} end
finish(id, 'cancel', now_ms(), ARGV[2], ARGV[3])
return {'ok'}
