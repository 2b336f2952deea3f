-- What an account has uploaded, by file name: when each expires, and its bytes; those of all together under TOTAL.
local function drop_upload(account, name)
  redis.call('ZREM', at('uploads', account), name)
  local bytes = redis.call('HGET', at('upload_bytes', account), name)
  if not bytes then return end
  redis.call('HDEL', at('upload_bytes', account), name)
  redis.call('HINCRBY', at('upload_bytes', account), TOTAL, -bytes)
end

local function expire_upload(account, name, expire)
  redis.call('ZADD', at('uploads', account), expire, name)
  local last = redis.call('ZRANGE', at('uploads', account), -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIREAT', at('uploads', account), last)
  redis.call('PEXPIREAT', at('upload_bytes', account), last)
end

local function count_upload(account, name, bytes, expire)
  if account == '' then return end
  drop_upload(account, name)
  redis.call('HSET', at('upload_bytes', account), name, bytes)
  redis.call('HINCRBY', at('upload_bytes', account), TOTAL, bytes)
  expire_upload(account, name, expire)
end
