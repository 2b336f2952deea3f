-- ARGV: id, spec, digest, model, priority, chunks_total (0: open-ended), idempotency_key, max_queued, priorities (comma
-- separated), job to continue, session_ms (0: no session), time that media is kept for the job (ms), trace context, then
-- media ids
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

local parent, session_ms = ARGV[10], tonumber(ARGV[11])
if parent ~= '' and redis.call('EXISTS', at('checkpoint', parent)) == 0 then return {'gone', parent} end
for n = 14, #ARGV do
  if redis.call('EXISTS', at('media', ARGV[n])) == 0 then return {'no_media', ARGV[n]} end
end

-- The first write: it is what Redis refuses at maxmemory, and nothing may be written before it.
local now, seq = now_ms(), redis.call('INCR', at('seq'))

-- Keeps the index in step with expired records: two looks per submission outpace one entry per submission.
for _, old in ipairs(redis.call('ZRANGE', at('index'), 0, 1)) do
  if redis.call('EXISTS', at('job', old)) == 0 then redis.call('ZREM', at('index'), old) end
end

set(id, 'spec', spec, 'digest', digest, 'model', model, 'priority', priority, 'chunks_total', chunks_total,
    'idempotency_key', idempotency_key, 'state', 'queued', 'seq', seq, 'created_ms', now, 'chunks_done', 0,
    'attempts', 0, 'losses', 0, 'token', 0, 'revision', 0, 'chunks_started', 0, 'first_chunk', 0, 'updates', 0,
    'open_ended', chunks_total == '0' and 1 or 0, 'session', session_ms > 0 and 1 or 0, 'trace', ARGV[13])
if session_ms > 0 then redis.call('SET', at('session', id), 1, 'PX', session_ms) end
if parent ~= '' then
  redis.call('COPY', at('checkpoint', parent), at('checkpoint', id))
  redis.call('PERSIST', at('checkpoint', id))
end
for n = 14, #ARGV do
  local media, expire = at('media', ARGV[n]), now + ARGV[12]
  if expire > tonumber(redis.call('HGET', media, 'expire_ms')) then
    redis.call('HSET', media, 'expire_ms', expire)
    redis.call('PEXPIREAT', media, expire)
    redis.call('ZADD', at('media_index'), expire, redis.call('HGET', media, 'name'))
  end
end
redis.call('ZADD', at('index'), seq, id)
if idempotency_key ~= '' then redis.call('SET', at('idempotency', idempotency_key), id) end
enqueue(id, now)
changed(id)
return {'ok', id}
