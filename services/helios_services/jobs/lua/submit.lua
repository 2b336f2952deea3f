-- ARGV: id, spec, digest, model, priority, chunks_total, idempotency_key, max_queued, priorities (comma separated)
local id, spec, digest, model, priority, chunks_total, idempotency_key, max_queued = unpack(ARGV, 1, 8)
local existing = id
if idempotency_key ~= '' then existing = redis.call('GET', at('idempotency', idempotency_key)) or id end
local stored = field(existing, 'digest')
if stored then
  if stored ~= digest then return {'conflict', existing} end
  return {'ok', existing}
end

local queued = 0
for name in string.gmatch(ARGV[9], '[^,]+') do queued = queued + redis.call('ZCARD', at('queue', model, name)) end
if queued >= tonumber(max_queued) then return {'full', queued} end

-- The first write: it is what Redis refuses at maxmemory, and nothing may be written before it.
local now, seq = now_ms(), redis.call('INCR', at('seq'))

-- Keeps the index in step with expired records: two looks per submission outpace one entry per submission.
for _, old in ipairs(redis.call('ZRANGE', at('index'), 0, 1)) do
  if redis.call('EXISTS', at('job', old)) == 0 then redis.call('ZREM', at('index'), old) end
end

set(id, 'spec', spec, 'digest', digest, 'model', model, 'priority', priority, 'chunks_total', chunks_total,
    'idempotency_key', idempotency_key, 'state', 'queued', 'seq', seq, 'created_ms', now, 'chunks_done', 0,
    'attempts', 0, 'losses', 0, 'token', 0, 'revision', 0)
redis.call('ZADD', at('index'), seq, id)
if idempotency_key ~= '' then redis.call('SET', at('idempotency', idempotency_key), id) end
enqueue(id, now)
changed(id)
return {'ok', id}
