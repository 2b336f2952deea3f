-- ARGV: max_attempts, job_ttl_ms, chunk_ttl_ms
allow_at_maxmemory()
return {'ok', unpack(sweep(now_ms(), tonumber(ARGV[1]), ARGV[2], ARGV[3]))}
