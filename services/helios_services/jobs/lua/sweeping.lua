local SWEPT = 20  -- of each kind, by one call

-- Takes lapsed leases away: the job goes back to the queue, or fails after too many losses without progress.
local function reclaim(now, max_attempts, job_ttl_ms, chunk_ttl_ms)
  local lapsed = redis.call('ZRANGEBYSCORE', at('leases'), '-inf', now, 'LIMIT', 0, SWEPT)
  for _, id in ipairs(lapsed) do
    if not LEASED[field(id, 'state') or ''] then
      redis.call('ZREM', at('leases'), id)
    else
      local losses = redis.call('HINCRBY', at('job', id), 'losses', 1)
      if losses >= max_attempts then
        fail(id, 'fail', 'WORKER_LOST', 'the worker was lost ' .. losses .. ' times in a row without finishing a chunk',
             now, job_ttl_ms, chunk_ttl_ms)
      else
        release(id, now)
      end
    end
  end
  return lapsed
end

-- Ends jobs whose time is over, wherever they are: a worker that has one finds its lease gone. Returns how many it saw.
local function expire(now, job_ttl_ms, chunk_ttl_ms)
  local due = redis.call('ZRANGEBYSCORE', at('deadlines'), '-inf', now, 'LIMIT', 0, SWEPT)
  for _, id in ipairs(due) do
    local state, deadline, start_by = unpack(redis.call('HMGET', at('job', id), 'state', 'deadline_ms', 'start_by_ms'))
    if not after(id, 'expire') then
      redis.call('ZREM', at('deadlines'), id)
    elseif (tonumber(deadline or '') or math.huge) <= now then
      fail(id, 'expire', 'DEADLINE_EXCEEDED', 'the job had not ended by its deadline', now, job_ttl_ms, chunk_ttl_ms)
    elseif state == 'queued' and not field(id, 'started_ms') and (tonumber(start_by or '') or math.huge) <= now then
      local message = 'no worker had started the job within its queue timeout'
      fail(id, 'expire', 'QUEUE_TIMEOUT', message, now, job_ttl_ms, chunk_ttl_ms)
    else  -- it has started in time
      if tonumber(deadline or '') then redis.call('ZADD', at('deadlines'), deadline, id)
      else redis.call('ZREM', at('deadlines'), id) end
    end
  end
  return #due
end

-- Looks after jobs that wait for their clients: whose client has gone, or been away too long, gets a worker to end it.
-- Returns how many it saw.
local function revisit(now)
  local due = redis.call('ZRANGEBYSCORE', at('parked'), '-inf', now, 'LIMIT', 0, SWEPT)
  for _, id in ipairs(due) do
    local left = field(id, 'session') == '1' and redis.call('PTTL', at('session', id)) or 0
    if left > 0 and now < tonumber(field(id, 'parked_until_ms')) then
      redis.call('ZADD', at('parked'), math.min(now + left, field(id, 'parked_until_ms')), id)
    else
      unpark(id, now)
    end
  end
  return #due
end

-- Forgets what has expired, of a few accounts: records, or output. Returns SWEPT if there may be more.
local ACCOUNTS = 5
local function clear(list, forget_due, now)
  local due, most = redis.call('ZRANGEBYSCORE', at(list), '-inf', now, 'LIMIT', 0, ACCOUNTS), 0
  for _, account in ipairs(due) do most = math.max(most, forget_due(account, now)) end
  return (#due == ACCOUNTS or most == SETTLED) and SWEPT or 0
end
