"""What the decoding process gives up before it sees the file."""

import contextlib
import ctypes
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_OPEN_FILES = 3  # standard input, output and error


def confine(*, memory_bytes: int, cpu_s: int) -> None:
    """Limits this process for good: memory and CPU time; no new files, sockets, threads, processes or core dumps.

    (Processes and threads are not limited for root.) Import everything first. Raises OSError or ValueError where
    the system refuses.
    """
    if sys.platform == "linux":
        # when memory runs out, the kernel should take this process, not the worker
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a worker that dies leaves nothing behind
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    # SIGXCPU at the limit tells it from other kills; SIGKILL follows should it be ignored
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
