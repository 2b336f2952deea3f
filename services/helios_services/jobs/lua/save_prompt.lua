-- ARGV: id, token, prompt key, embedding, bytes that an account's jobs may have made, then the keys of the other
-- embeddings to keep
local id, key = ARGV[1], ARGV[3]
allow_at_maxmemory()
if not holds(id, ARGV[2]) then return {'lease_lost'} end
local keep = {[key] = true}
for n = 6, #ARGV do keep[ARGV[n]] = true end
local bytes, dropped = #ARGV[4] - redis.call('HSTRLEN', at('embeds', id), key), {}
for _, old in ipairs(redis.call('HKEYS', at('embeds', id))) do
  if not keep[old] then
    bytes = bytes - redis.call('HSTRLEN', at('embeds', id), old)
    dropped[#dropped + 1] = old
  end
end
if not make_output_room(field(id, 'account') or '', bytes, tonumber(ARGV[5]), now_ms()) then
  return {'quota', 'output_bytes', ARGV[5], ''}
end
change_output(id, bytes)
for _, old in ipairs(dropped) do redis.call('HDEL', at('embeds', id), old) end
redis.call('HSET', at('embeds', id), key, ARGV[4])
return {'ok'}
