-- ARGV: event, milliseconds until the next try ('': no more)
local event, wait_ms = ARGV[1], ARGV[2]
allow_at_maxmemory()
if wait_ms ~= '' then
  redis.call('ZADD', at('webhooks'), 'XX', now_ms() + wait_ms, event)
else
  redis.call('ZREM', at('webhooks'), event)
  redis.call('HDEL', at('webhook_tries'), event)
end
return {'ok'}
