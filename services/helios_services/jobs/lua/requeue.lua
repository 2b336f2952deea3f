-- Queues a dead letter again. ARGV: id, nonce
local id, nonce = ARGV[1], ARGV[2]
if field(id, 'requeued') == nonce then return {'ok'} end
local state, before = after(id, 'requeue')
if not before then return {'not_found'} end
if not state or not redis.call('ZSCORE', at('dead'), id) then return {'not_dead', before} end
local now = now_ms()
redis.call('HDEL', at('job', id), 'ended_ms', 'error_reason', 'error_message', 'deadline_ms', 'start_by_ms')
set(id, 'state', state, 'losses', 0, 'requeued', nonce)
leave_dead(id)
redis.call('ZREM', at('output_until', field(id, 'account') or ''), id)
redis.call('ZREM', at('kept', (field(id, 'account') or '')), member(id))
for _, name in ipairs({'job', 'checkpoint', 'embeds', 'chunks', 'init', 'prompts'}) do redis.call('PERSIST', at(name, id)) end
for index = field(id, 'first_chunk') or 0, field(id, 'chunks_done') - 1 do redis.call('PERSIST', at('fragment', id, index)) end
local idempotency_key = field(id, 'idempotency_key')
if idempotency_key ~= '' then redis.call('PERSIST', at('idempotency', idempotency_key)) end
local model, _, account = place(id)
catch_up(model, account)
enqueue(id, now)
changed(id)
return {'ok'}
