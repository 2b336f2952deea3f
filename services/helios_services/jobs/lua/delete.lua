-- Forgets a job and all that is kept of it; one that has not ended is cancelled first, so that its worker's writes are
-- refused. ARGV: id, job_ttl_ms, chunk_ttl_ms
local id = ARGV[1]
allow_at_maxmemory()
if not field(id, 'state') then return {'not_found'} end
if after(id, 'cancel') then finish(id, 'cancel', now_ms(), ARGV[2], ARGV[3]) end
if redis.call('ZSCORE', at('dead'), id) then give_up(id, ARGV[3]) end
shed(field(id, 'account') or '', id)
changed(id)
forget(field(id, 'account') or '', member(id))
return {'ok'}
