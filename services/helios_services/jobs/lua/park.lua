-- Sets a job aside that has to wait for its client, so that its worker is free. ARGV: id, token, pause_limit_ms, chunks a
-- session may be ahead of its reader
local id, token = ARGV[1], ARGV[2]
allow_at_maxmemory()
if answered(id, 'release', token) then return {'ok'} end
if not holds(id, token) then return {'lease_lost'} end
local now = now_ms()
local paused = tonumber(field(id, 'paused_ms') or '')
local ahead = field(id, 'session') == '1' and field(id, 'chunks_done') - (field(id, 'chunks_read') or 0) >= session_lead(id, ARGV[4])
if field(id, 'stopping') or not (paused or ahead) then return {'kept'} end
redis.call('HINCRBY', at('job', id), 'attempts', -1)
answer(id, 'release', token)
local look = (paused and math.max(paused, field(id, 'started_ms')) or now) + ARGV[3]
set(id, 'state', after(id, 'release'), 'parked_until_ms', look)
unlease(id)
local left = redis.call('PTTL', at('session', id))
if field(id, 'session') == '1' then look = math.min(look, now + math.max(left, 0)) end
redis.call('ZADD', at('parked'), look, id)
changed(id)
return {'ok'}
