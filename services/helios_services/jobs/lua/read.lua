-- A session's client has been sent chunks. ARGV: id, chunks, chunks a session may be ahead of its reader, and of its viewer
-- if these chunks were played ('': nobody knows)
local id, chunks = ARGV[1], tonumber(ARGV[2])
allow_at_maxmemory()
if field(id, 'session') ~= '1' or field(id, 'ended_ms') then return {'ok'} end
chunks = math.min(chunks, tonumber(field(id, 'chunks_done')))
if chunks > tonumber(field(id, 'chunks_read') or 0) then set(id, 'chunks_read', chunks) end
if ARGV[4] ~= '' then set(id, 'lead', ARGV[4]) end
if not field(id, 'paused_ms') and field(id, 'chunks_done') - chunks < session_lead(id, ARGV[3]) then unpark(id, now_ms()) end
return {'ok'}
