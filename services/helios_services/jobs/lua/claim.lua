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
-- A job whose workers were lost again and again is tried alone: if it kills them, it kills no other with them.
local function suspect(job) return tonumber(field(job, 'losses') or 0) >= SUSPECT_LOSSES end
local function mine(job) return LEASED[field(job, 'state') or ''] and field(job, 'worker') == worker end
local alone = redis.call('GET', at('alone', worker))
if alone and suspect(alone) and mine(alone) then return {'none'} end
local id = next_job(model, tonumber(ARGV[8]))
if not id then return {'none'} end
if suspect(id) then
  for _, held in ipairs(redis.call('ZRANGE', at('leases'), 0, -1)) do if mine(held) then return {'none'} end end
  redis.call('SET', at('alone', worker), id, 'PX', ARGV[6])
end
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
