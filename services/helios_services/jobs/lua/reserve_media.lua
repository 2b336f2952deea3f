-- A place for an upload that begins, before its first byte: its file's name is kept until then, and its bytes are counted
-- for its account. ARGV: file name, account ('': of nobody), bytes at most, milliseconds that the upload may take, files
-- that there may be of all, of the account, bytes of the account
local name, account, bytes, lease_ms, max_files, account_files, account_bytes = unpack(ARGV)
local now = now_ms()
local expire = now + lease_ms
if not redis.call('ZSCORE', at('media_index'), name) then
  local kept = redis.call('ZCARD', at('media_index')) - redis.call('ZCOUNT', at('media_index'), '-inf', now)
  if kept >= tonumber(max_files) then return {'full', kept} end
  if account ~= '' then
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', at('uploads', account), '-inf', now)) do drop_upload(account, old) end
    if redis.call('ZCARD', at('uploads', account)) >= tonumber(account_files) then
      return {'quota', 'max_uploads', account_files}
    end
    if tonumber(redis.call('HGET', at('upload_bytes', account), TOTAL) or 0) + bytes > tonumber(account_bytes) then
      return {'quota', 'max_upload_bytes', account_bytes}
    end
  end
  redis.call('ZADD', at('media_index'), expire, name)
  count_upload(account, name, bytes, expire)
end
return {'ok', unpack(redis.call('ZRANGEBYSCORE', at('media_index'), '-inf', now, 'LIMIT', 0, 20))}
