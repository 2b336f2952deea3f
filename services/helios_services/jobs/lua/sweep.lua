-- What time alone brings about, a bounded part of it. Answers whether there may be more, and the jobs whose leases had
-- lapsed. ARGV: max_attempts, job_ttl_ms, chunk_ttl_ms
local max_attempts, job_ttl_ms, chunk_ttl_ms = tonumber(ARGV[1]), ARGV[2], ARGV[3]
allow_at_maxmemory()
local now = now_ms()
local seen = math.max(expire(now, job_ttl_ms, chunk_ttl_ms), revisit(now), clear('expiring', settle, now),
                      clear('output_expiring', settle_output, now))
local lapsed = reclaim(now, max_attempts, job_ttl_ms, chunk_ttl_ms)
return {'ok', math.max(seen, #lapsed) >= SWEPT and 1 or 0, unpack(lapsed)}
