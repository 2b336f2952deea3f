"""Every Redis key of the job store, below the root `helios:{<namespace>}:` (one hash tag, so one cluster slot).

| key | type | holds | expires |
|---|---|---|---|
| job:<id> | hash | the job's record | job_ttl_s after its end; never before: an accepted job is not lost |
| queue:<model>:<priority> | zset | queued job ids by submission number | never: an empty zset does not exist |
| lane:<model>:<priority>:<account> | zset | an account's part of that queue | never: an empty zset does not exist |
| lanes:<model>:<priority> | zset | accounts in line there, by virtual time | never: entries leave with the part |
| barred:<model> | set | accounts that wait for their own running jobs | never: entries leave with the lease |
| share:<model> | hash | virtual times of the accounts, and the clock's | job_ttl_s after the last chunk started |
| running:<model>:<account> | set | running job ids | never: entries leave with the lease |
| held:<worker> | set | ids of the jobs that a worker has | job_ttl_s after its last claim |
| limits | hash | running jobs that each account may have | job_ttl_s after the last submission |
| rate:<account> | string | when its burst of submissions is all there again | at that time |
| video_ms:<account>:<day> | string | milliseconds charged on that UTC day | two days after the last |
| storage:<account> | hash | bytes of its jobs' records, and their sum | never: entries leave with the records |
| output:<account> | hash | kept bytes that its jobs have made, and their sum | never: entries leave with those |
| output_until:<account> | zset | its ended jobs by the time that these expire (ms) | never: entries leave then |
| output_expiring | zset | accounts by the first of these times (ms) | never: entries leave with the last of these |
| kept:<account> | zset | "<tenant>:<job id>" by the record's end (ms) | never: entries leave then |
| expiring | zset | accounts by the first of these ends (ms) | never: entries leave with the last of these |
| deadlines | zset | job ids by deadline or latest start (ms) | never: entries leave then, or at the job's end |
| parked | zset | jobs that wait for their clients, by the next look (ms) | never: entries leave then at the latest |
| dead | zset | dead letters' ids by submission number | never: entries leave with the records |
| tenant_dead:<tenant> | zset | those of a tenant | never: entries leave with the records |
| webhooks:<lane> | zset | "<job id>:<end (ms)>" by the next try (ms) | never: entries leave after the last try |
| webhook_lanes | zset | lanes ("<tenant> <place>") by their next try (ms) | never: entries leave with those |
| webhook_tries | hash | tries so far, by the same | never: entries leave with those |
| leases | zset | running job ids by lease end (ms) | never: entries leave with the lease |
| index | zset | all job ids by submission number | never: entries leave with the records |
| tenant:<tenant> | zset | those of a tenant | never: entries leave with the records |
| ended | hash | jobs ended so far, by final state | never: three counters, for the metrics |
| pace:<model> | hash | seconds of a chunk by stage, a moving average | job_ttl_s after the last finished chunk |
| seq | string | submission counter | never: 8 bytes, order depends on it |
| layout | hash | version of these keys, and how far they are scrubbed | never: two fields |
| cursor_key | string | secret that seals the cursors of lists | never: 32 bytes, the same for all gateways |
| idempotency:<key> | string | job id | with the job's record |
| alone:<worker> | string | job id that the worker was to try alone | job_ttl_s after the claim |
| claim:<nonce> | string | job id (or webhook), answers a repeated claim | after one lease |
| chunks:<id> | list | "<ready ms> <chunk record>" | chunk_ttl_s after the job's end* |
| fragment:<id>:<index> | string | fMP4 fragment | chunk_ttl_s after the job's end* |
| init:<id> | string | fMP4 init segment | chunk_ttl_s after the job's end* |
| checkpoint:<id> | string | sampling state after the last chunk | chunk_ttl_s after success; else at the end* |
| embeds:<id> | hash | prompt embeddings that chunks to come may need | deleted at the job's end* |
| prompts:<id> | list | prompt updates: nonce, chunk, interpolation, prompt | with the job's request |
| session:<id> | string | a client is there | session_grace_s after the client's last sign of life |
| media:<id> | hash | an upload's record | media.ttl_s after the upload; job_ttl_s after a job was given it |
| media_index | zset | upload file names by expiry | never: entries leave at later uploads, with their files |
| uploads:<account> | zset | names of an account's uploads, begun ones too, by expiry | with the last of them |
| upload_bytes:<account> | hash | bytes of each, and of all | with the last of them |

* of a dead letter: job_ttl_s after its end.

A job's record goes earlier than job_ttl_s after its end if its account needs the room, and what it has made earlier
than chunk_ttl_s. The field `spec` of a record is the request; after a cancelled end, or a failed one that leaves no
dead letter, it is the summary.

Channels: `changed` (payload: job id) and `queued` (payload: model).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Keys:
    """Builds the keys that Python reads; the Lua scripts build the same names from the root."""

    namespace: str

    @property
    def root(self) -> str:
        """The prefix of every key."""
        return f"helios:{{{self.namespace}}}:"

    def of(self, *parts: str | int) -> str:
        """`root` followed by the parts, joined by colons."""
        return self.root + ":".join(map(str, parts))
