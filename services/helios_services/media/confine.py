"""What the decoding process gives up before it sees the file."""

import contextlib
import ctypes
import resource
import signal
import sys
from pathlib import Path

from helios_services.media.system_calls import filter_system_calls

_PR_SET_PDEATHSIG = 1


def confine(*, memory_bytes: int, cpu_s: int, require_filter: bool) -> None:
    """Limits this process for good: memory and CPU time, and the few system calls that decoding needs.

    The filter of system calls holds the process; the limits on files, processes and core dumps stand behind it, and
    alone where there is no filter and none is required. Import everything first. Raises OSError or ValueError where
    the system refuses.
    """
    if sys.platform == "linux":
        # when memory runs out, the kernel should take this process, not the worker
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        # a worker that dies leaves nothing behind
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),  # not for root
        (resource.RLIMIT_NOFILE, 0),  # bounds the numbers of descriptors: none, those that are open stay
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    # SIGXCPU at the limit tells it from other kills; SIGKILL follows should it be ignored
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    try:
        filter_system_calls()
    except OSError:
        if require_filter:
            raise
