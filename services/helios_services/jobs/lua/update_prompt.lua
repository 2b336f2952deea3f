-- ARGV: id, nonce, chunk (at least), interpolation chunks, prompt, max_updates, bytes that all updates of a job may take,
-- bytes that an account may store
local id, nonce, chunk, interpolation, prompt, max_updates, max_bytes, max_stored = unpack(ARGV)
local state = field(id, 'state')
if not state then return {'not_found'} end
local begins = '["' .. nonce .. '",'
for _, entry in ipairs(redis.call('LRANGE', at('prompts', id), -16, -1)) do
  if string.sub(entry, 1, #begins) == begins then return {'ok', string.match(entry, '^%d+', #begins + 1)} end
end
if state ~= 'queued' and state ~= 'running' then return {'invalid', state} end
local count = redis.call('LLEN', at('prompts', id))
if count >= tonumber(max_updates) then return {'full', count} end
chunk = math.max(tonumber(chunk), tonumber(field(id, 'chunks_started') or 0))
local total = tonumber(field(id, 'chunks_total'))
if field(id, 'stopping') or (total > 0 and chunk >= total) then return {'late', total} end
local entry = begins .. string.format('%d,%d,', chunk, interpolation) .. cjson.encode(prompt) .. ']'
local bytes = #entry + ENTRY_BYTES
local taken = tonumber(field(id, 'update_bytes') or 0) + bytes
if taken > tonumber(max_bytes) then return {'long', max_bytes} end
refuse_at_maxmemory()
if not make_room(field(id, 'account') or '', bytes, tonumber(max_stored), now_ms()) then return {'quota', 'stored_bytes', max_stored, '5000'} end
redis.call('RPUSH', at('prompts', id), entry)
set(id, 'updates', count + 1, 'update_bytes', taken)
change_bytes(id, bytes)
changed(id)
return {'ok', tostring(chunk)}
