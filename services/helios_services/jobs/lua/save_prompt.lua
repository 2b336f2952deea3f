-- ARGV: id, token, prompt key, embedding, then the keys of the other embeddings to keep
local id, key = ARGV[1], ARGV[3]
allow_at_maxmemory()
if not holds(id, ARGV[2]) then return {'lease_lost'} end
local keep = {[key] = true}
for n = 5, #ARGV do keep[ARGV[n]] = true end
for _, old in ipairs(redis.call('HKEYS', at('embeds', id))) do
  if not keep[old] then redis.call('HDEL', at('embeds', id), old) end
end
redis.call('HSET', at('embeds', id), key, ARGV[4])
return {'ok'}
