-- Summaries of jobs. Looks at a bounded number of jobs and answers a bounded number of bytes: a page may be
-- short, and still have a successor. ARGV: index, submission number to begin beyond ('': the first), jobs, jobs looked
-- at, bytes, model ('': any), desc (newest first) or asc, states (none: any) …
-- Answers: the submission number that the next page begins beyond ('': there is none), then id, [field, value, …] of each job
local index, beyond, limit, looks, bytes, model = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local wanted
for n = 8, #ARGV do
  wanted = wanted or {}
  wanted[ARGV[n]] = true
end
local answer, left, last = {''}, limit, nil
local newest_first = ARGV[7] == 'desc'
local start = beyond ~= '' and '(' .. beyond or newest_first and '+inf' or '-inf'
local command, far = 'ZRANGEBYSCORE', '+inf'
if newest_first then command, far = 'ZREVRANGEBYSCORE', '-inf' end
local entries = redis.call(command, at(index), start, far, 'WITHSCORES', 'LIMIT', 0, looks + 1)
for n = 1, #entries, 2 do
  local id, seq = entries[n], entries[n + 1]
  if left == 0 or n > 2 * looks then
    answer[1] = last
    break
  end
  local state, of = unpack(redis.call('HMGET', at('job', id), 'state', 'model'))
  if state and (model == '' or model == of) and (not wanted or wanted[state]) then
    local record = {}
    for k, value in ipairs(redis.call('HMGET', at('job', id), unpack(SUMMARY))) do
      if value then
        record[#record + 1] = SUMMARY[k]
        record[#record + 1] = value
        bytes = bytes - #value
      end
    end
    bytes = bytes - JOB_BYTES
    if bytes < 0 and left < limit then
      answer[1] = last
      break
    end
    answer[#answer + 1] = id
    answer[#answer + 1] = record
    left = left - 1
  end
  last = seq
end
return answer
