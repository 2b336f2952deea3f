"""What code that took over the decoding process could try. A program of its own, which test_escapes.py runs.

`escapes.py USER_ID confined|free [KILLER]` prints, as JSON, the name of the error that each try met, or "escaped".
What a try needs is made before the confinement, so that nothing but the confinement refuses it.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from ctypes import byref, create_string_buffer
from typing import Any

from helios_services.media.confine import confine

sys.path.insert(0, os.path.dirname(__file__))
from call_numbers import NUMBERS  # type: ignore[import-not-found]

ESCAPED = "escaped"
CHANGING = {
    "execute a program", "execute by descriptor", "leave the namespaces", "take a signal",
    "another user", "own limits", "a new root", "a personality",
}  # fmt: skip
"""Tries that would change the trying process itself; left out where nothing holds it."""
AT_FDCWD, SECRET = -100, b"a secret of another process"
GET_PID_32_BIT = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"
"""mov eax, 20; int 0x80; ret."""
Tries = dict[str, Callable[[], str]]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def answer(name: str, *arguments: Any) -> int:
    """A system call's answer, or minus the number of its error."""
    ctypes.set_errno(0)
    plain = (ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)
    value = int(libc.syscall(ctypes.c_long(NUMBERS[name]), *plain))
    return value if value >= 0 else -ctypes.get_errno()


def call(name: str, *arguments: Any) -> str:
    """What became of a system call."""
    return met(answer(name, *arguments))


def met(value: int) -> str:
    """ "escaped", or the error's name."""
    return ESCAPED if value >= 0 else errno.errorcode[-value]


def opened(path: bytes, flags: int = os.O_RDONLY) -> str:
    """An attempt to open a file."""
    return call("openat", AT_FDCWD, path, flags, 0)


class Surroundings:
    """What the tries need: a victim of the same user with a secret in its memory, open files and sockets, a thread."""

    def __init__(self) -> None:
        self.secret = create_string_buffer(SECRET)
        self.victim = self._victim()
        self.pidfd = os.pidfd_open(self.victim)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.socket = socket.socket()
        self.file, self.null = os.open(__file__, os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
        self.buffer = create_string_buffer(4096)
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.page = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.go, self.thread_met = threading.Event(), ""
        self.thread = threading.Thread(target=self._open_in_the_thread, daemon=True)
        self.thread.start()

    def _victim(self) -> int:
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # it ends with this process
            os.write(tell, b"x")
            time.sleep(1000)
        os.read(ready, 1)
        return child

    def _open_in_the_thread(self) -> None:
        self.go.wait()
        self.thread_met = opened(b"/proc/self/environ")

    def in_the_thread(self) -> str:
        """A thread that was there before the confinement is confined as well."""
        self.go.set()
        self.thread.join()
        return self.thread_met

    def tries(self) -> Tries:
        """All, those that close descriptors last."""
        return self.files() | self.descriptors() | self.processes() | self.pages() | self.kernel() | self.closing()

    def files(self) -> Tries:
        """Files by name, and those that are open."""
        how, handle = create_string_buffer(24), create_string_buffer(struct.pack("=Ii", 128, 0), 256)
        mount, vector = ctypes.c_int(), Vector(ctypes.addressof(self.buffer), 8)
        return {
            "open a file": lambda: opened(b"/etc/passwd"),
            "open with openat2": lambda: call("openat2", AT_FDCWD, b"/etc/passwd", how, 24),
            "open the parent's environment": lambda: opened(b"/proc/%d/environ" % os.getppid()),
            "open own memory": lambda: opened(b"/proc/self/mem", os.O_RDWR),
            "open another's memory": lambda: opened(b"/proc/%d/mem" % self.victim),
            "open a pipe's other end": lambda: opened(b"/proc/self/fd/1"),
            "open in a thread that was there": self.in_the_thread,
            "look for a file": lambda: call("faccessat2", AT_FDCWD, b"/etc/passwd", 0, 0),
            "a handle of a file": lambda: call("name_to_handle_at", AT_FDCWD, b"/etc", handle, byref(mount), 0),
            "read an open file": lambda: call("read", self.file, self.buffer, 8),
            "read at a place": lambda: call("pread64", self.file, self.buffer, 8, 0),
            "read into several places": lambda: call("readv", self.file, byref(vector), 1),
            "write to an open file": lambda: call("write", self.null, b"x", 1),
            "copy between descriptors": lambda: call("sendfile", self.null, self.file, None, 1),
            "seek": lambda: call("lseek", self.file, 0, 0),
            "ioctl": lambda: call("ioctl", self.file, 0x5451, 0),
        }

    def descriptors(self) -> Tries:
        """New descriptors of every kind, and connections."""
        pair, rings, message = create_string_buffer(8), create_string_buffer(120), create_string_buffer(56)
        port = socket.htons(self.listener.getsockname()[1])
        address = struct.pack("=HH4s8x", socket.AF_INET, port, b"\x7f\0\0\1")
        return {
            "fcntl": lambda: call("fcntl", 1, 1, 0),
            "fcntl for signals": lambda: call("fcntl", self.socket.fileno(), 8, self.victim),
            "duplicate": lambda: call("dup", 1),
            "duplicate onto another": lambda: call("dup3", 1, 9, 0),
            "a pipe": lambda: call("pipe2", pair, 0),
            "a socket": lambda: call("socket", socket.AF_INET, socket.SOCK_STREAM, 0),
            "a netlink socket": lambda: call("socket", 16, socket.SOCK_RAW, 0),
            "a pair of sockets": lambda: call("socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0, pair),
            "connect an open socket": lambda: call("connect", self.socket.fileno(), address, len(address)),
            "send": lambda: call("sendmsg", self.socket.fileno(), message, 0x4000),
            "a file in memory": lambda: call("memfd_create", b"x", 0),
            "secret memory": lambda: call("memfd_secret", 0),
            "an event descriptor": lambda: call("eventfd2", 0, 0),
            "an epoll descriptor": lambda: call("epoll_create1", 0),
            "a timer descriptor": lambda: call("timerfd_create", 1, 0),
            "a watch of files": lambda: call("inotify_init1", 0),
            "shared memory": lambda: call("shmget", 0, 4096, 0o1600),
            "a message queue": lambda: call("msgget", 0, 0o1600),
            "io_uring": lambda: call("io_uring_setup", 4, rings),
            "aio": lambda: call("io_setup", 4, byref(ctypes.c_ulong())),
        }

    def processes(self) -> Tries:
        """New processes, and what reaches others."""
        spawn = create_string_buffer(struct.pack("=8Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
        program = b"/bin/true", (ctypes.c_char_p * 2)(b"true", None), (ctypes.c_char_p * 1)(None)
        here, there = Vector(ctypes.addressof(self.buffer), 8), Vector(ctypes.addressof(self.secret), 8)
        vectors = byref(here), 1, byref(there), 1, 0
        page = Vector(self.page, mmap.PAGESIZE)
        limit, old = create_string_buffer(struct.pack("=2Q", 64, 64)), create_string_buffer(16)
        return {
            "fork": lambda: _child(answer("clone", signal.SIGCHLD, 0, 0, 0, 0)),
            "clone3": lambda: _child(answer("clone3", spawn, 64)),
            "execute a program": lambda: call("execve", *program),
            "execute by descriptor": lambda: call("execveat", self.file, b"", *program[1:], 0x1000),
            "leave the namespaces": lambda: call("unshare", 0x10000000),
            "enter a namespace": lambda: call("setns", self.pidfd, 0x40000000),
            "trace another": lambda: call("ptrace", 0x4206, self.victim, 0, 0),
            "read another's memory": lambda: call("process_vm_readv", self.victim, *vectors),
            "write another's memory": lambda: call("process_vm_writev", self.victim, *vectors),
            "compare with another": lambda: call("kcmp", os.getpid(), self.victim, 2, 0, 0),
            "a descriptor of a process": lambda: call("pidfd_open", self.victim, 0),
            "another's descriptor": lambda: call("pidfd_getfd", self.pidfd, 0, 0),
            "signal another": lambda: call("kill", self.victim, 0),
            "signal the parent": lambda: call("kill", os.getppid(), 0),
            "signal a thread": lambda: call("tgkill", self.victim, self.victim, 0),
            "signal by descriptor": lambda: call("pidfd_send_signal", self.pidfd, 0, 0, 0),
            "take a signal": lambda: call("rt_sigaction", signal.SIGXCPU, self.buffer, 0, 8),
            "advise on another's memory": lambda: call("process_madvise", self.pidfd, byref(page), 1, 20, 0),
            "another's limits": lambda: call("prlimit64", self.victim, 7, 0, old),
            "own limits": lambda: call("prlimit64", 0, 4, limit, 0),
            "another user": lambda: call("setuid", os.getuid()),
        }

    def pages(self) -> Tries:
        """Memory that could hold code, and oddities of memory."""
        return {
            "executable memory": lambda: _mapped(mmap.PROT_READ | mmap.PROT_EXEC),
            "executable and writable memory": lambda: _mapped(7),
            "memory made executable": lambda: call("mprotect", self.page, mmap.PAGESIZE, 5),
            "memory made executable by key": lambda: call("pkey_mprotect", self.page, mmap.PAGESIZE, 5, -1),
            "advise on own memory": lambda: call("madvise", self.page, mmap.PAGESIZE, 4),
            "faults as events": lambda: call("userfaultfd", 1),
            "a futex that hands on waiters": lambda: call("futex", self.buffer, 3, 0, 0, self.buffer, 0),
        }

    def kernel(self) -> Tries:
        """What else the kernel offers."""
        array = create_string_buffer(struct.pack("=5I", 2, 4, 4, 1, 0), 128)  # BPF_MAP_TYPE_ARRAY
        counter = create_string_buffer(struct.pack("=IIQ24xQ", 1, 128, 0, 0b1100000), 128)  # not of the kernel
        action = byref(ctypes.c_uint32(0x7FFF0000))
        return {
            "a BPF map": lambda: call("bpf", 0, array, 128),
            "a performance counter": lambda: call("perf_event_open", counter, 0, -1, -1, 0),
            "a key": lambda: call("add_key", b"user", b"helios", b"x", 1, -3),
            "a keyring": lambda: call("keyctl", 0, -3, 1),
            "a personality": lambda: call("personality", 0xFFFFFFFF),
            "a process setting": lambda: call("prctl", 3, 0, 0, 0, 0),
            "another filter": lambda: call("seccomp", 2, 0, action),
            "a new root": lambda: call("chroot", b"/"),
            "a mount": lambda: call("mount", 0, b"/nowhere", 0, 0x1000, 0),
            "a module": lambda: call("init_module", self.buffer, 0, b""),
        }

    def closing(self) -> Tries:
        """A limit on the numbers of descriptors is none on their count: one that is closed makes room."""
        return {
            "close the input, open a file": lambda: _first(answer("close", 0), lambda: opened(b"/etc/passwd")),
            "close all, open a file": lambda: _first(answer("close_range", 3, 99, 0), lambda: opened(b"/etc/passwd")),
        }


def _child(child: int) -> str:
    if child == 0:
        os._exit(0)
    if child > 0:
        os.waitpid(child, 0)
    return met(child)


def _mapped(protection: int) -> str:
    ctypes.set_errno(0)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    place = libc.mmap(None, ctypes.c_size_t(mmap.PAGESIZE), protection, private, -1, ctypes.c_long(0))
    return met(-ctypes.get_errno() if place == ctypes.c_void_p(-1).value else 0)


def _first(value: int, then: Callable[[], str]) -> str:
    return then() if value >= 0 else met(value)


def killers() -> dict[str, Callable[[], object]]:
    """Calls by another ABI than the process's own."""
    if platform.machine() != "x86_64":
        return {}
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=7)
    code.write(GET_PID_32_BIT)
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return {"x32": lambda: libc.syscall(ctypes.c_long(0x40000000 | NUMBERS["getpid"])), "32 bit": run}


def main(user_id: int, state: str, killer: str = "") -> None:
    """Tries everything, or the one killer first."""
    if user_id != os.getuid():
        os.setgroups([])
        os.setgid(user_id)
        os.setuid(user_id)
    tries, killing = Surroundings().tries(), killers()
    if state == "confined":
        confine(memory_bytes=1 << 32, cpu_s=60, require_filter=True)
    if killer:
        killing[killer]()
    results = {name: attempt() for name, attempt in tries.items() if state == "confined" or name not in CHANGING}
    os.write(1, json.dumps(results).encode())
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
