-- ARGV: id, request (JSON), its summary (JSON), digest, model, priority, chunks_total (0: open-ended), idempotency_key, max_queued,
-- job to continue, session_ms (0: no session), time that media is kept for the job (ms), bytes that an account may store,
-- trace context, terms (JSON), bytes that an account's jobs may have made, then media ids.
-- terms: tenant, account, weight, fps, first_chunk_ms and chunk_ms (what these chunks are charged), timeout_ms, queue_timeout_ms,
-- webhook, and the account's limits: submits_per_minute, max_queued, max_running, video_ms_a_day; what is absent does not bind.
local id, request, summary, digest, model, priority, chunks_total, idempotency_key, max_queued = unpack(ARGV, 1, 9)
local parent, session_ms, media_ttl_ms, max_stored, trace = ARGV[10], tonumber(ARGV[11]), ARGV[12], tonumber(ARGV[13]), ARGV[14]
local terms, max_output, MEDIA = cjson.decode(ARGV[15]), tonumber(ARGV[16]), 17
local account, now = terms.account, now_ms()
local existing = id
if idempotency_key ~= '' then existing = redis.call('GET', at('idempotency', idempotency_key)) or id end
local known = field(existing, 'digest')
if known then
  if known ~= digest then return {'conflict', existing} end
  return {'ok', existing}
end

local queued, of_account = 0, 0
for _, name in ipairs(PRIORITIES) do
  queued = queued + redis.call('ZCARD', at('queue', model, name))
  of_account = of_account + redis.call('ZCARD', at('lane', model, name, account))
end
-- A full queue still takes jobs of accounts that have little in it, up to twice its size: no account can fill it for all.
if queued >= tonumber(max_queued) and (of_account >= max_queued / 10 or queued >= 2 * max_queued) then
  return {'full', queued}
end
local function refused(limit, value, retry_ms)
  return {'quota', limit, tostring(value), retry_ms and tostring(math.ceil(retry_ms)) or ''}
end
if terms.max_queued and of_account >= terms.max_queued then return refused('max_queued', terms.max_queued, 5000) end

-- The rate is the generic cell rate algorithm's, with a burst of one minute: `due` is when the burst is all there again.
local due
if terms.submits_per_minute then
  local each = 60000 / terms.submits_per_minute
  due = math.max(tonumber(redis.call('GET', at('rate', account)) or now), now) + each
  local burst = math.max(60000, each)
  if due > now + burst + 1 then return refused('submits_per_minute', terms.submits_per_minute, due - now - burst) end
end
local chunks = tonumber(chunks_total)
local video_ms, used_key = chunks > 0 and terms.first_chunk_ms + (chunks - 1) * terms.chunk_ms or 0, ''
if terms.video_ms_a_day then
  used_key = video_key(account, now)
  local used = tonumber(redis.call('GET', used_key) or 0)
  local minutes = terms.video_ms_a_day / 60000
  if video_ms > terms.video_ms_a_day then return refused('video_minutes_per_day', minutes) end
  if used + math.max(video_ms, terms.first_chunk_ms) > terms.video_ms_a_day then
    return refused('video_minutes_per_day', minutes, 86400000 - now % 86400000)
  end
end

local copied = 0
if parent ~= '' then
  copied = redis.call('STRLEN', at('checkpoint', parent))
  if copied == 0 then return {'gone', parent} end
end
for n = MEDIA, #ARGV do
  if redis.call('EXISTS', at('media', ARGV[n])) == 0 then return {'no_media', ARGV[n]} end
end
local bytes = #request + #summary + 2 * #idempotency_key + #trace + RECORD_BYTES + copied
if bytes > max_stored then return refused('stored_bytes', max_stored) end
refuse_at_maxmemory()
if not make_output_room(account, 1, max_output, now) then return refused('output_bytes', max_output, 5000) end
if not make_room(account, bytes, max_stored, now) then return refused('stored_bytes', max_stored, 5000) end

local seq = redis.call('INCR', at('seq'))
if due then redis.call('SET', at('rate', account), string.format('%.3f', due), 'PX', math.ceil(due - now)) end
if used_key ~= '' and video_ms > 0 then take_video_time(used_key, video_ms) end
catch_up(model, account)
redis.call('HSET', at('limits'), account, terms.max_running or '')
redis.call('PEXPIRE', at('limits'), media_ttl_ms)
set(id, 'spec', request, 'summary', summary, 'digest', digest, 'model', model, 'priority', priority,
    'chunks_total', chunks_total, 'idempotency_key', idempotency_key, 'state', 'queued', 'seq', seq, 'created_ms', now,
    'chunks_done', 0, 'attempts', 0, 'losses', 0, 'token', 0, 'revision', 0, 'chunks_started', 0, 'first_chunk', 0,
    'updates', 0, 'update_bytes', 0, 'open_ended', chunks == 0 and 1 or 0, 'session', session_ms > 0 and 1 or 0,
    'trace', trace, 'tenant', terms.tenant, 'account', account, 'weight', terms.weight, 'fps', terms.fps,
    'first_chunk_ms', terms.first_chunk_ms, 'chunk_ms', terms.chunk_ms, 'video_key', used_key, 'video_ms', video_ms,
    'video_limit_ms', terms.video_ms_a_day or '', 'webhook', terms.webhook or '',
    'deadline_ms', terms.timeout_ms and now + terms.timeout_ms or '',
    'start_by_ms', terms.queue_timeout_ms and now + terms.queue_timeout_ms or '')
local over = math.min(terms.timeout_ms or math.huge, terms.queue_timeout_ms or math.huge)
if over < math.huge then redis.call('ZADD', at('deadlines'), now + over, id) end
if session_ms > 0 then redis.call('SET', at('session', id), 1, 'PX', session_ms) end
if parent ~= '' then
  redis.call('COPY', at('checkpoint', parent), at('checkpoint', id))
  redis.call('PERSIST', at('checkpoint', id))
  set(id, 'copied_bytes', copied)
end
for n = MEDIA, #ARGV do
  local media, expire = at('media', ARGV[n]), now + media_ttl_ms
  if expire > tonumber(redis.call('HGET', media, 'expire_ms')) then
    redis.call('HSET', media, 'expire_ms', expire)
    redis.call('PEXPIREAT', media, expire)
    local name, owner = unpack(redis.call('HMGET', media, 'name', 'account'))
    redis.call('ZADD', at('media_index'), expire, name)
    if owner and owner ~= '' then expire_upload(owner, name, expire) end
  end
end
redis.call('ZADD', at('index'), seq, id)
redis.call('ZADD', at('tenant', terms.tenant), seq, id)
count_bytes(id, account, bytes)
if idempotency_key ~= '' then redis.call('SET', at('idempotency', idempotency_key), id) end
enqueue(id, now)
changed(id)
return {'ok', id, redis.call('HGETALL', at('job', id))}
