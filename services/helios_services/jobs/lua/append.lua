-- ARGV: id, token, index, record, fragment, init segment, checkpoint, lease_ms, chunks that an open-ended job keeps
local id, token, index = ARGV[1], ARGV[2], tonumber(ARGV[3])
allow_at_maxmemory()
if not holds(id, token) then return {'lease_lost'} end
local done = tonumber(field(id, 'chunks_done'))
if index == done - 1 and field(id, 'appended_token') == token then return {'ok'} end
local total = tonumber(field(id, 'chunks_total'))
if index ~= done or (total > 0 and index >= total) then return {'gap', done} end
local now = now_ms()
redis.call('RPUSH', at('chunks', id), now .. ' ' .. ARGV[4])
redis.call('SET', at('fragment', id, index), ARGV[5])
redis.call('SET', at('init', id), ARGV[6], 'NX')
redis.call('SET', at('checkpoint', id), ARGV[7])
own_state(id)
set(id, 'chunks_done', index + 1, 'appended_token', token, 'losses', 0)
if field(id, 'open_ended') == '1' then
  local first, before = index + 1 - ARGV[9], tonumber(field(id, 'first_chunk'))
  for old = before, first - 1 do redis.call('DEL', at('fragment', id, old)) end
  if first > before then
    redis.call('LTRIM', at('chunks', id), first - before, -1)
    set(id, 'first_chunk', first)
  end
end
redis.call('ZADD', at('leases'), now + ARGV[8], id)
changed(id)
return {'ok'}
