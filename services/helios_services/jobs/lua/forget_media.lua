-- ARGV: names of files that are not kept (any more): media ids, each with the type's suffix
for _, name in ipairs(ARGV) do redis.call('DEL', at('media', string.match(name, '^[^.]+'))) end
redis.call('ZREM', at('media_index'), unpack(ARGV))
return {'ok'}
