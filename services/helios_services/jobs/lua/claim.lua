-- ARGV: model, worker, nonce, lease_ms, job_ttl_ms, priorities claimed (the first so many)
local model, worker, nonce, lease_ms, job_ttl_ms = unpack(ARGV, 1, 5)
allow_at_maxmemory()
local now = now_ms()
local answered = redis.call('GET', at('claim', nonce))
if answered and field(answered, 'nonce') == nonce and LEASED[field(answered, 'state')] then
  return {'ok', answered, field(answered, 'token'), field(answered, 'waited_ms')}
end
look_after_barred(model)
-- What runs may write beyond maxmemory, to its end. So nothing more is begun when it comes near. A user that may not ask
-- (INFO) is not told.
local function memory_is_short()
  local told = redis.pcall('INFO', 'memory')
  if type(told) ~= 'string' then return false end
  local used, most = string.match(told, 'used_memory:(%d+)'), string.match(told, 'maxmemory:(%d+)')
  return tonumber(most or 0) > 0 and tonumber(used) > WATERMARK * most
end
-- A job whose workers were lost again and again is tried alone: if it kills them, it kills no other with them.
local function suspect(job) return tonumber(field(job, 'losses') or 0) >= SUSPECT_LOSSES end
local function mine(job) return LEASED[field(job, 'state') or ''] and field(job, 'worker') == worker end
local alone = redis.call('GET', at('alone', worker))
if alone and suspect(alone) and mine(alone) then return {'none'} end
local id = next_job(model, tonumber(ARGV[6]))
if not id then return {'none'} end
if memory_is_short() then return {'short'} end
if suspect(id) then
  for _, held in ipairs(redis.call('SMEMBERS', at('held', worker))) do
    if mine(held) then return {'none'} end
    redis.call('SREM', at('held', worker), held)  -- a process of an older release has taken it away
  end
  redis.call('SET', at('alone', worker), id, 'PX', job_ttl_ms)
end
local waited = now - field(id, 'queued_ms')
local _, priority, account = place(id)
leave_lane(id, model, priority, account)
redis.call('HSETNX', at('job', id), 'started_ms', now)
redis.call('HINCRBY', at('job', id), 'attempts', 1)
local token = redis.call('HINCRBY', at('job', id), 'token', 1)
set(id, 'state', after(id, 'claim'), 'worker', worker, 'nonce', nonce, 'waited_ms', waited)
redis.call('ZADD', at('leases'), now + lease_ms, id)
redis.call('SADD', at('running', model, account), id)
redis.call('SADD', at('held', worker), id)
redis.call('PEXPIRE', at('held', worker), job_ttl_ms)
line_up(model, account)
redis.call('SET', at('claim', nonce), id, 'PX', lease_ms)
changed(id)
return {'ok', id, tostring(token), tostring(waited)}
