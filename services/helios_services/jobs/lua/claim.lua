-- ARGV: model, worker, nonce, lease_ms, max_attempts, job_ttl_ms, chunk_ttl_ms, priorities (comma separated)
local model, worker, nonce, lease_ms = unpack(ARGV, 1, 4)
allow_at_maxmemory()
local now = now_ms()
local answered = redis.call('GET', at('claim', nonce))
if answered and field(answered, 'nonce') == nonce and LEASED[field(answered, 'state')] then
  return {'ok', answered, field(answered, 'token'), field(answered, 'waited_ms')}
end
reclaim(now, tonumber(ARGV[5]), ARGV[6], ARGV[7])
for priority in string.gmatch(ARGV[8], '[^,]+') do
  local queue = at('queue', model, priority)
  local id = redis.call('ZRANGE', queue, 0, 0)[1]
  while id and not field(id, 'queued_ms') do  -- a record that is gone must not hold up the jobs behind it
    redis.call('ZREM', queue, id)
    id = redis.call('ZRANGE', queue, 0, 0)[1]
  end
  if id then
    local waited = now - field(id, 'queued_ms')
    redis.call('ZREM', queue, id)
    redis.call('HSETNX', at('job', id), 'started_ms', now)
    redis.call('HINCRBY', at('job', id), 'attempts', 1)
    local token = redis.call('HINCRBY', at('job', id), 'token', 1)
    set(id, 'state', after(id, 'claim'), 'worker', worker, 'nonce', nonce, 'waited_ms', waited)
    redis.call('ZADD', at('leases'), now + lease_ms, id)
    redis.call('SET', at('claim', nonce), id, 'PX', lease_ms)
    changed(id)
    return {'ok', id, tostring(token), tostring(waited)}
  end
end
return {'none'}
