-- The next webhook whose time has come, for as long as a sender may take with it. ARGV: lease_ms
allow_at_maxmemory()
local now = now_ms()
for _, event in ipairs(redis.call('ZRANGEBYSCORE', at('webhooks'), '-inf', now, 'LIMIT', 0, 10)) do
  local id, ended = string.match(event, '^(.*):(%d+)$')
  if field(id, 'ended_ms') == ended then
    redis.call('ZADD', at('webhooks'), now + ARGV[1], event)
    return {'ok', event, id, tostring(redis.call('HINCRBY', at('webhook_tries'), event, 1))}
  end
  redis.call('ZREM', at('webhooks'), event)  -- queued again, or expired: there is nothing to tell
  redis.call('HDEL', at('webhook_tries'), event)
end
return {'none'}
