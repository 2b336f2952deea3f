-- ARGV: account of those that have no record (any more), then names of files that are not kept (any more): media ids,
-- each with the type's suffix
for n = 2, #ARGV do
  local name = ARGV[n]
  local media = at('media', string.match(name, '^[^.]+'))
  drop_upload(redis.call('HGET', media, 'account') or ARGV[1], name)
  redis.call('DEL', media)
  redis.call('ZREM', at('media_index'), name)
end
return {'ok'}
