-- ARGV: id, token, index, record, fragment, init segment, checkpoint, lease_ms, chunks that an open-ended job keeps, bytes
-- that an account's jobs may have made
local id, token, index = ARGV[1], ARGV[2], tonumber(ARGV[3])
allow_at_maxmemory()
if not holds(id, token) then return {'lease_lost'} end
local done = tonumber(field(id, 'chunks_done'))
if index == done - 1 and field(id, 'appended_token') == token then return {'ok'} end
local total = tonumber(field(id, 'chunks_total'))
if index ~= done or (total > 0 and index >= total) then return {'gap', done} end
local now = now_ms()
local first, before = index + 1 - ARGV[9], tonumber(field(id, 'first_chunk') or 0)
if field(id, 'open_ended') ~= '1' then first = 0 end
local bytes = #ARGV[5] + CHUNK_BYTES + #ARGV[7] - state_bytes(id)
if redis.call('EXISTS', at('init', id)) == 0 then bytes = bytes + #ARGV[6] end
for old = before, first - 1 do bytes = bytes - fragment_bytes(id, old) end
if not make_output_room(field(id, 'account') or '', bytes, tonumber(ARGV[10]), now) then
  return {'quota', 'output_bytes', ARGV[10], ''}
end
change_output(id, bytes)
redis.call('RPUSH', at('chunks', id), now .. ' ' .. ARGV[4])
redis.call('SET', at('fragment', id, index), ARGV[5])
redis.call('SET', at('init', id), ARGV[6], 'NX')
redis.call('SET', at('checkpoint', id), ARGV[7])
own_state(id)
set(id, 'chunks_done', index + 1, 'appended_token', token, 'losses', 0)
if first > before then
  for old = before, first - 1 do redis.call('DEL', at('fragment', id, old)) end
  redis.call('LTRIM', at('chunks', id), first - before, -1)
  set(id, 'first_chunk', first)
end
redis.call('ZADD', at('leases'), now + ARGV[8], id)
changed(id)
return {'ok'}
