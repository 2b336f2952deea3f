-- ARGV: id, token, index, prompt updates known to the worker, pause_limit_ms, chunks a session may be ahead of its reader,
-- fair quantum (chunks), job_ttl_ms
local id, token, index = ARGV[1], ARGV[2], tonumber(ARGV[3])
allow_at_maxmemory()
if not holds(id, token) then return {'lease_lost'} end
local now, session = now_ms(), field(id, 'session') == '1'
if session and redis.call('EXISTS', at('session', id)) == 0 then set(id, 'stopping', 1) end
-- a pause counts from the time that a worker first has the job
local paused = tonumber(field(id, 'paused_ms') or '')
if paused and now - math.max(paused, tonumber(field(id, 'started_ms'))) >= tonumber(ARGV[5]) then set(id, 'stopping', 1) end
local starts = index >= tonumber(field(id, 'chunks_started') or 0)  -- not when a chunk is made again
local open_ended, video_limit = field(id, 'open_ended') == '1', tonumber(field(id, 'video_limit_ms') or '')
local account = field(id, 'account') or ''
if starts and open_ended and video_limit then
  local used = tonumber(redis.call('GET', video_key(account, now)) or 0)
  if used + chunk_charge(id, index) > video_limit then set(id, 'stopping', 1) end
end
if field(id, 'stopping') then
  if tonumber(field(id, 'chunks_total')) ~= index then
    set(id, 'chunks_total', index)
    changed(id)
  end
  return {'stopped'}
end
if paused then return {'paused'} end
if session and index - (field(id, 'chunks_read') or 0) >= session_lead(id, ARGV[6]) then return {'ahead'} end
local repeated = field(id, 'begun') == token .. ':' .. index  -- the chunk it was told to make, and is charged for
if not repeated and outranked(id, tonumber(ARGV[7])) then return {'outranked'} end
set(id, 'begun', token .. ':' .. index)
if starts then
  set(id, 'chunks_started', index + 1)
  charge(id, index, ARGV[8])
  if open_ended and video_limit then take_video_time(video_key(account, now), (chunk_charge(id, index))) end
end
local deadline = tonumber(field(id, 'deadline_ms') or '')
return {'ok', deadline and tostring(deadline - now) or '', unpack(redis.call('LRANGE', at('prompts', id), ARGV[4], -1))}
