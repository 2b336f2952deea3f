"""A command in a session of its own, behind a small process that waits for it.

A signal to the whole process group (`timeout`, a service manager, Ctrl-C) would otherwise end Ray first, and the
command would wait for it in vain. It reaches only the process in front, which hands it on. Whatever the command leaves
behind, however it ends, becomes a child of the process in front, which ends it.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PATIENCE_S = 20.0
"""What is left behind has this long to end after SIGTERM; then it is killed."""


def in_own_session() -> None:
    """Returns in a child process with a session of its own. The calling process waits for it and exits with its status.

    If the process in front is killed, the child is sent SIGTERM. To be called before threads are started.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    front, child = os.getpid(), os.fork()
    if child:
        sys.exit(_wait_for(child))
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
    if os.getppid() != front:  # it was killed before it was watched
        os._exit(1)


def _wait_for(child: int) -> int:
    """Waits for the child and ends what it leaves behind. Returns its exit status."""
    for number in HANDED_ON:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
    while True:
        ended, status = os.waitpid(-1, 0)  # also what others have left to this process
        if ended == child:
            break
    for number in HANDED_ON:
        signal.signal(number, signal.SIG_IGN)
    _end_children(signal.SIGTERM, PATIENCE_S)
    _end_children(signal.SIGKILL, PATIENCE_S)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        print(f"helios: was ended by {signal.Signals(-code).name}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _end_children(number: signal.Signals, patience_s: float) -> None:
    """Sends the signal to every child once, and waits until there is none."""
    deadline, told = time.monotonic() + patience_s, set[int]()
    while time.monotonic() < deadline:
        for pid in _children() - told:
            os.kill(pid, number)
            told.add(pid)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            return


def _children() -> set[int]:
    """This process's children, those that have ended included."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # has ended meanwhile
            continue
        if parent == os.getpid():
            found.add(int(folder.name))
    return found


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere a command that is killed may leave something behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
