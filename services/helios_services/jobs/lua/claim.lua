-- ARGV: model, worker, nonce, lease_ms, max_attempts, job_ttl_ms, chunk_ttl_ms, priorities claimed (the first so many)
local model, worker, nonce, lease_ms = unpack(ARGV, 1, 4)
allow_at_maxmemory()
local now = now_ms()
local answered = redis.call('GET', at('claim', nonce))
if answered and field(answered, 'nonce') == nonce and LEASED[field(answered, 'state')] then
  return {'ok', answered, field(answered, 'token'), field(answered, 'waited_ms')}
end
sweep(now, tonumber(ARGV[5]), ARGV[6], ARGV[7])
adopt(model)
local id = next_job(model, tonumber(ARGV[8]))
if not id then return {'none'} end
local waited = now - field(id, 'queued_ms')
dequeue(id)
redis.call('HSETNX', at('job', id), 'started_ms', now)
redis.call('HINCRBY', at('job', id), 'attempts', 1)
local token = redis.call('HINCRBY', at('job', id), 'token', 1)
set(id, 'state', after(id, 'claim'), 'worker', worker, 'nonce', nonce, 'waited_ms', waited)
redis.call('ZADD', at('leases'), now + lease_ms, id)
redis.call('SADD', at('running', model, field(id, 'account') or ''), id)
redis.call('SET', at('claim', nonce), id, 'PX', lease_ms)
changed(id)
return {'ok', id, tostring(token), tostring(waited)}
