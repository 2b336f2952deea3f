-- ARGV: id, nonce, chunk (at least), interpolation chunks, prompt, max_updates
local id, nonce, chunk, interpolation, prompt, max_updates = unpack(ARGV)
local state = field(id, 'state')
if not state then return {'not_found'} end
for _, entry in ipairs(redis.call('LRANGE', at('prompts', id), -16, -1)) do
  local made = cjson.decode(entry)
  if made[1] == nonce then return {'ok', made[2]} end
end
if state ~= 'queued' and state ~= 'running' then return {'invalid', state} end
local count = redis.call('LLEN', at('prompts', id))
if count >= tonumber(max_updates) then return {'full', count} end
chunk = math.max(tonumber(chunk), tonumber(field(id, 'chunks_started') or 0))
local total = tonumber(field(id, 'chunks_total'))
if field(id, 'stopping') or (total > 0 and chunk >= total) then return {'late', total} end
redis.call('RPUSH', at('prompts', id), cjson.encode({nonce, chunk, tonumber(interpolation), prompt}))
set(id, 'updates', count + 1)
changed(id)
return {'ok', tostring(chunk)}
