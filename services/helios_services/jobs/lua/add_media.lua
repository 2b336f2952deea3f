-- The upload of a place is there. ARGV: id, file name, content type, size in bytes, ttl_ms, tenant, account
local id, name, content_type, size_bytes, ttl_ms, tenant, account = unpack(ARGV)
local expire = now_ms() + ttl_ms
if redis.call('EXISTS', at('media', id)) == 0 then
  if not redis.call('ZSCORE', at('media_index'), name) then return {'lapsed'} end
  redis.call('HSET', at('media', id), 'name', name, 'content_type', content_type, 'size_bytes', size_bytes,
             'expire_ms', expire, 'tenant', tenant, 'account', account)
  redis.call('PEXPIREAT', at('media', id), expire)
  redis.call('ZADD', at('media_index'), expire, name)
  count_upload(account, name, size_bytes, expire)
end
return {'ok'}
