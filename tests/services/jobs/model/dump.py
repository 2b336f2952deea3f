"""All that a Redis holds."""

from typing import Any

from redis.asyncio import Redis

from helios_services.jobs import keys
from services.jobs.model.small_store import NAMESPACE

DUMP = """
local read = {hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, zset = {'ZRANGE', 0, -1, 'WITHSCORES'}, set = {'SMEMBERS'},
              string = {'GET'}}
local out = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local command, from, to, extra = unpack(read[kind])
  local value
  if extra then value = redis.call(command, key, from, to, extra)
  elseif from then value = redis.call(command, key, from, to)
  else value = redis.call(command, key) end
  out[#out + 1] = {key, kind, redis.call('PTTL', key) > 0 and 1 or 0, value}
end
return out
"""
Dump = dict[str, tuple[bool, Any]]
"""Whether a key expires, and its value, by key without the root."""


async def dump(client: Redis) -> Dump:
    """Everything in the database."""
    root = keys.Keys(NAMESPACE).root
    found: Dump = {}
    for key, kind, expires, value in await client.eval(DUMP, 0):
        name = key.decode()
        assert name.startswith(root)
        if kind == b"hash":
            value = dict(zip(value[::2], value[1::2], strict=True))
        elif kind == b"zset":
            value = dict(zip(value[::2], map(float, value[1::2]), strict=True))
        elif kind == b"set":
            value = set(value)
        found[name.removeprefix(root)] = (bool(expires), value)
    return found


def timeless(dump: Dump) -> Dump:
    """The dump without what a repetition may change: the times of leases and of looks, and the count of changes."""
    kept = {name: value for name, value in dump.items() if name != "layout"}
    for name, (expires, value) in dump.items():
        if name in ("leases", "parked"):
            kept[name] = (expires, set(value))
        elif name.startswith("job:"):
            kept[name] = (expires, {field: text for field, text in value.items() if field != b"revision"})
    return kept
