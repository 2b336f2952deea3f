-- The next webhook whose time has come, for as long as a sender may take with it. ARGV: nonce, lease_ms
local nonce, lease_ms = ARGV[1], ARGV[2]
allow_at_maxmemory()
local now, answered = now_ms(), redis.call('GET', at('claim', nonce))
if answered then
  return {'ok', answered, string.match(answered, '^(.*):%d+$'), redis.call('HGET', at('webhook_tries'), answered) or '1'}
end
for _, event in ipairs(redis.call('ZRANGEBYSCORE', at('webhooks'), '-inf', now, 'LIMIT', 0, 10)) do
  local id, ended = string.match(event, '^(.*):(%d+)$')
  if field(id, 'ended_ms') == ended then
    redis.call('ZADD', at('webhooks'), now + lease_ms, event)
    redis.call('SET', at('claim', nonce), event, 'PX', lease_ms)
    return {'ok', event, id, tostring(redis.call('HINCRBY', at('webhook_tries'), event, 1))}
  end
  redis.call('ZREM', at('webhooks'), event)  -- queued again, or expired: there is nothing to tell
  redis.call('HDEL', at('webhook_tries'), event)
end
return {'none'}
