"""The invariants of the fault suite, by number, and the words above its table."""

HEAD = """# What the service survives

This page lists what is done to a running service, and what was then seen. `python -m tests.faults.report` writes it
from a run of the fault suite; do not edit it.

In each of these tests every accepted job ends exactly once. A job that succeeds has one video. Its chunks have neither
gap nor repeat. "Bit-identical" compares every byte of the stream with that of an undisturbed run.

- The suite uses real processes and signals, and real Ray where it says so.
- Redis is a real redis-server with an append-only file: one server, and three as a cluster.
- A TCP proxy cuts, delays, swallows answers and falls silent (`tests/faults/proxy.py`).
- Where Ray does not matter, the worker is the real dispatcher with quick stand-in stages, which harms itself at named
  points (`tests/faults/stand_in_worker.py`).
- All is checked from outside: through gRPC, in Redis, in the folder of videos.
- Leases of Ray workers are 12 s (heartbeat 1 s) instead of the default 15 s (5 s). Those of the chaos run are 1.5 s
  (0.3 s). Those of stand-in workers are 30 s (0.3 s) unless the fault says otherwise. The tests themselves let the
  leases of the dead run out, so that nothing depends on the machine's speed.
- Times seen are of a shared machine with two cores. None is asserted.

`python -m pytest tests/faults` runs the suite. `HELIOS_SOAK_JOBS=100000` makes the soak (10) the full one.
"""

INVARIANTS = {
    1: "A worker killed at any transition is replaced when its lease runs out; the job goes on at its saved state",
    2: "A worker that comes back after its lease is refused everywhere",
    3: "A job much longer than its lease is executed once, also if its event loop blocks",
    4: "One of many reclaimers gets a job; one that dies in the act is replaced",
    5: "A job that kills its workers fails with its reason; the queue flows on",
    6: "A lost answer makes no duplicate and no false failure",
    7: "Redis late, cut off, slow or half-open: everything resumes unaided, without a busy loop or a flood of logs",
    8: "Redis killed: nothing is lost. Redis emptied: jobs fail loudly",
    9: "Redis at maxmemory: submissions are refused, running jobs finish",
    10: "After many jobs keys, memory and open files are as before",
    11: "A job submitted before the first worker starts runs",
    12: "A Redis Cluster does as well as one Redis",
    13: "An idempotency key is one job",
    14: "A cancelled job has one final state, and its worker is free within a chunk",
    15: "A reader that stalls costs no memory and nobody else's time",
    16: "A reader that vanishes is forgotten; it goes on from any chunk, byte for byte",
    17: "Deadlines travel from gateway to replica; expired work is not started",
    18: "A gateway told to end flips its health first; its streams finish or end with a resume point",
    19: "A denoiser killed in mid-job changes no bit of the video",
    20: "Jobs survive the loss of the Serve controller and of the Ray head",
    21: "Ten times the load: quick refusals, bounded queues, fair shares",
    22: "Without valid credentials nothing gets in; health stays open",
    23: "A worker's clock has no say in leases",
    24: "An artifact store that is full or slow: published later or failed, never half a video",
    25: "Malformed and hostile input gets a clear error, and harms nobody",
}
