-- ARGV: id, token, event (succeed or fail), job_ttl_ms, chunk_ttl_ms, then field, value, …
local id, token, event = ARGV[1], ARGV[2], ARGV[3]
allow_at_maxmemory()
if answered(id, event, token) then return {'ok'} end
if not holds(id, token) then return {'lease_lost'} end
local state, before = after(id, event)
if not state then return {'invalid', before} end
set(id, unpack(ARGV, 6))
answer(id, event, token)
finish(id, event, now_ms(), ARGV[4], ARGV[5])
return {'ok'}
