-- ARGV: id, token
local id = ARGV[1]
allow_at_maxmemory()
if not holds(id, ARGV[2]) then return {'lease_lost'} end
local state, before = after(id, 'publish')
if not state then return before == 'publishing' and {'ok'} or {'invalid', before} end
if field(id, 'chunks_done') ~= field(id, 'chunks_total') then return {'gap', field(id, 'chunks_done')} end
set(id, 'state', state)
changed(id)
return {'ok'}
