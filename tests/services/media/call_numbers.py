"""Numbers of system calls that tests make themselves, by the kind of processor."""

import platform

_NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "lseek": 8, "mprotect": 10, "rt_sigaction": 13, "ioctl": 16,
        "pread64": 17, "readv": 19, "madvise": 28, "shmget": 29, "dup": 32, "getpid": 39, "sendfile": 40,
        "socket": 41, "connect": 42, "sendmsg": 46, "socketpair": 53, "clone": 56, "execve": 59, "kill": 62,
        "msgget": 68, "fcntl": 72, "ptrace": 101, "setuid": 105, "personality": 135, "prctl": 157,
        "chroot": 161, "mount": 165, "init_module": 175, "futex": 202, "io_setup": 206, "tgkill": 234,
        "add_key": 248, "keyctl": 250, "openat": 257, "unshare": 272, "timerfd_create": 283, "eventfd2": 290,
        "epoll_create1": 291, "dup3": 292, "pipe2": 293, "inotify_init1": 294, "perf_event_open": 298,
        "prlimit64": 302, "name_to_handle_at": 303, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "kcmp": 312, "seccomp": 317, "memfd_create": 319, "bpf": 321, "execveat": 322,
        "userfaultfd": 323, "pkey_mprotect": 329,
    },
    "aarch64": {
        "io_setup": 0, "eventfd2": 19, "epoll_create1": 20, "dup": 23, "dup3": 24, "fcntl": 25,
        "inotify_init1": 26, "ioctl": 29, "mount": 40, "chroot": 51, "openat": 56, "close": 57, "pipe2": 59,
        "lseek": 62, "read": 63, "write": 64, "readv": 65, "pread64": 67, "sendfile": 71, "timerfd_create": 85,
        "personality": 92, "unshare": 97, "futex": 98, "init_module": 105, "ptrace": 117, "kill": 129,
        "tgkill": 131, "rt_sigaction": 134, "setuid": 146, "prctl": 167, "getpid": 172, "msgget": 186,
        "shmget": 194, "socket": 198, "socketpair": 199, "connect": 203, "sendmsg": 211, "add_key": 217,
        "keyctl": 219, "clone": 220, "execve": 221, "mprotect": 226, "madvise": 233, "perf_event_open": 241,
        "prlimit64": 261, "name_to_handle_at": 264, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "seccomp": 277, "memfd_create": 279, "bpf": 280, "execveat": 281,
        "userfaultfd": 282, "pkey_mprotect": 288,
    },
}  # fmt: skip
_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "close_range": 436,
    "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439, "process_madvise": 440, "memfd_secret": 447,
}  # fmt: skip
NUMBERS = _NUMBERS[platform.machine()] | _EVERYWHERE
