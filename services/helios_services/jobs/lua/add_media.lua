-- ARGV: id, file name, content type, size in bytes, ttl_ms, max_files, tenant
local id, name, content_type, size_bytes, ttl_ms, max_files, tenant = unpack(ARGV)
local now = now_ms()
local expire = now + ttl_ms
if redis.call('EXISTS', at('media', id)) == 0 then
  local expired = redis.call('ZCOUNT', at('media_index'), '-inf', now)
  local kept = redis.call('ZCARD', at('media_index')) - expired
  if kept >= tonumber(max_files) then return {'full', kept} end
  redis.call('ZADD', at('media_index'), expire, name)
  redis.call('HSET', at('media', id), 'name', name, 'content_type', content_type, 'size_bytes', size_bytes,
             'expire_ms', expire, 'tenant', tenant)
  redis.call('PEXPIREAT', at('media', id), expire)
end
return {'ok', unpack(redis.call('ZRANGEBYSCORE', at('media_index'), '-inf', now, 'LIMIT', 0, 20))}
