-- ARGV: names of files that have been deleted
redis.call('ZREM', at('media_index'), unpack(ARGV))
return {'ok'}
