-- Walks all jobs again and again, a few at a time, and names those that another release has written, so that they can be
-- adopted; mends what a process of that release has left out. ARGV: submission number up to which the walk has come, jobs
-- looked at
-- Answers: where the walk goes on ('0': from the start), ids to be adopted
local from, looks, now = ARGV[1], tonumber(ARGV[2]), now_ms()
allow_at_maxmemory()
local entries = redis.call('ZRANGEBYSCORE', at('index'), '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, looks)
local answer = {#entries < 2 * looks and '0' or entries[#entries]}
for n = 1, #entries, 2 do
  local id = entries[n]
  local account, tenant, ended = unpack(redis.call('HMGET', at('job', id), 'account', 'tenant', 'ended_ms'))
  if redis.call('EXISTS', at('job', id)) == 0 then
    redis.call('ZREM', at('index'), id)
  elseif not tenant or redis.call('HEXISTS', at('storage', account or ''), id) == 0 then
    answer[#answer + 1] = id
  elseif ended and not redis.call('ZSCORE', at('kept', account), member(id)) then
    keep_until(id, now + math.max(redis.call('PTTL', at('job', id)), 0))
    keep_output_until(id, now + math.max(redis.call('PTTL', at('init', id)), 0))
  end
end
for _, id in ipairs(redis.call('ZRANDMEMBER', at('dead'), 3)) do
  if redis.call('EXISTS', at('job', id)) == 0 then redis.call('ZREM', at('dead'), id) end
end
return answer
