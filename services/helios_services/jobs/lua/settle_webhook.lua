-- ARGV: event, its lane, milliseconds until the next try ('': no more)
local event, lane, wait_ms = ARGV[1], ARGV[2], ARGV[3]
allow_at_maxmemory()
if wait_ms ~= '' then
  redis.call('ZADD', at('webhooks', lane), 'XX', now_ms() + wait_ms, event)
else
  redis.call('ZREM', at('webhooks', lane), event)
  redis.call('HDEL', at('webhook_tries'), event)
end
see_to_webhooks(lane)
return {'ok'}
