-- The next webhook whose time has come, for as long as a sender may take with it. ARGV: nonce, lease_ms, then lanes that
-- are busy
local nonce, lease_ms = ARGV[1], ARGV[2]
allow_at_maxmemory()
local now, answered = now_ms(), redis.call('GET', at('claim', nonce))
if answered then
  local event, lane = string.match(answered, '^(%S+) (.*)$')
  return {'ok', event, string.match(event, '^(.*):%d+$'), redis.call('HGET', at('webhook_tries'), event) or '1', lane}
end

-- Those that a release without lanes has put down are given one.
local old = redis.call('ZRANGE', at('webhooks'), 0, 99, 'WITHSCORES')
for n = 1, #old, 2 do
  local lane = field(string.match(old[n], '^(.*):%d+$'), 'webhook') or '1'
  redis.call('ZADD', at('webhooks', lane), old[n + 1], old[n])
  redis.call('ZREM', at('webhooks'), old[n])
  see_to_webhooks(lane)
end

local busy = {}
for n = 3, #ARGV do busy[ARGV[n]] = true end
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', at('webhook_lanes'), '-inf', now, 'LIMIT', 0, #ARGV + 10)) do
  if not busy[lane] then
    for _, event in ipairs(redis.call('ZRANGEBYSCORE', at('webhooks', lane), '-inf', now, 'LIMIT', 0, 10)) do
      local id, ended = string.match(event, '^(.*):(%d+)$')
      if field(id, 'ended_ms') == ended then
        redis.call('ZADD', at('webhooks', lane), now + lease_ms, event)
        see_to_webhooks(lane)
        redis.call('SET', at('claim', nonce), event .. ' ' .. lane, 'PX', lease_ms)
        return {'ok', event, id, tostring(redis.call('HINCRBY', at('webhook_tries'), event, 1)), lane}
      end
      redis.call('ZREM', at('webhooks', lane), event)  -- queued again, or expired: there is nothing to tell
      redis.call('HDEL', at('webhook_tries'), event)
    end
    see_to_webhooks(lane)
  end
end
return {'none'}
