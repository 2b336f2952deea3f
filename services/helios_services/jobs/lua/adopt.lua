-- Gives a job that an older release has written what this one needs. ARGV: id, request, summary, tenant, then field, value of
-- what is set if it is missing …
local id, request, summary, tenant = unpack(ARGV, 1, 4)
if redis.call('EXISTS', at('job', id)) == 0 then return {'not_found'} end
allow_at_maxmemory()
local account, seq, ended = unpack(redis.call('HMGET', at('job', id), 'account', 'seq', 'ended_ms'))
redis.call('ZREM', at('kept', account or ''), ':' .. id)  -- it has ended before its tenant was known
set(id, 'spec', request, 'summary', summary, 'tenant', tenant)
redis.call('HSETNX', at('job', id), 'account', '')
for n = 5, #ARGV, 2 do redis.call('HSETNX', at('job', id), ARGV[n], ARGV[n + 1]) end
redis.call('ZADD', at('tenant', tenant), seq, id)
local dead = redis.call('ZSCORE', at('dead'), id)
redis.call('ZREM', at('tenant_dead', ''), id)
if dead then redis.call('ZADD', at('tenant_dead', tenant), seq, id) end
local updates = 0
if tonumber(field(id, 'updates') or 0) > 0 then
  for _, entry in ipairs(redis.call('LRANGE', at('prompts', id), 0, -1)) do updates = updates + #entry + ENTRY_BYTES end
end
set(id, 'update_bytes', updates)
count_bytes(id, account or '', record_bytes(id) + updates)
if field(id, 'state') == 'queued' and not redis.call('ZSCORE', at('parked'), id) then
  local model, priority = place(id)
  redis.call('ZADD', at('lane', model, priority, account or ''), seq, id)
  line_up(model, account or '')
end
if ended then
  keep_until(id, now_ms() + math.max(redis.call('PTTL', at('job', id)), 0))
  if not dead and field(id, 'state') ~= 'succeeded' then drop_request(id) end
end
return {'ok'}
