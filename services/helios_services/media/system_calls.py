"""A filter of system calls (seccomp) for the decoding process: what is not on the list fails with EPERM.

The list is what decoding needs once every library is imported: the request's pipe, the two output pipes, memory that
is not executable, and an end. Nothing on it names a file, a process, a socket or another descriptor. Calls by another
ABI than the process's own (32-bit, x32) kill it: their numbers mean other calls. The filter is a classic BPF program,
see Documentation/userspace-api/seccomp_filter.rst of the kernel and linux/{seccomp,filter,bpf_common}.h.
"""

import ctypes
import errno
import os
import platform
import sys
from dataclasses import dataclass
from typing import NamedTuple

STDIN, STDOUT, STDERR = 0, 1, 2
PROT_EXEC = 4
_PRIVATE, _REAL_TIME = 128, 256
_WAIT, _WAKE, _WAIT_BITSET, _WAKE_BITSET = 0, 1, 9, 10
FUTEX_CALLS = tuple(
    call | private
    for call in (_WAIT, _WAKE, _WAIT_BITSET, _WAIT_BITSET | _REAL_TIME, _WAKE_BITSET)
    for private in (0, _PRIVATE)
)
"""What locks and conditions are made of. Not the calls that hand on locks or waiters: decoding has no use for them."""


class Instruction(NamedTuple):
    """struct sock_filter: jumps count the instructions that are left out if the comparison holds, or fails."""

    code: int
    if_true: int
    if_false: int
    operand: int


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A call; if `argument` is set, only with one of `values` there, or without any of the bits `not_bits`.

    An argument is compared by its low 32 bits: the kernel takes those arguments as int, or looks at low bits only.
    """

    name: str
    argument: int | None = None
    values: tuple[int, ...] = ()
    not_bits: int = 0


ALLOWED = (
    Allowed(name="read", argument=0, values=(STDIN,)),
    Allowed(name="write", argument=0, values=(STDOUT, STDERR)),
    Allowed(name="mmap", argument=2, not_bits=PROT_EXEC),
    Allowed(name="mprotect", argument=2, not_bits=PROT_EXEC),
    Allowed(name="munmap"),
    Allowed(name="mremap"),
    Allowed(name="brk"),
    Allowed(name="futex", argument=1, values=FUTEX_CALLS),
    Allowed(name="clock_gettime"),
    Allowed(name="sched_getaffinity"),  # libav counts the processors
    Allowed(name="rt_sigreturn"),
    Allowed(name="exit"),
    Allowed(name="exit_group"),
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How a processor's kernel numbers its calls. foreign_bit: set in numbers of another ABI (x32), else 0."""

    audit_arch: int
    seccomp: int
    numbers: dict[str, int]
    foreign_bit: int = 0


MACHINES = {
    "x86_64": Machine(
        audit_arch=0xC000003E,
        seccomp=317,
        foreign_bit=0x40000000,
        numbers={
            "read": 0,
            "write": 1,
            "mmap": 9,
            "mprotect": 10,
            "munmap": 11,
            "brk": 12,
            "rt_sigreturn": 15,
            "mremap": 25,
            "exit": 60,
            "futex": 202,
            "sched_getaffinity": 204,
            "clock_gettime": 228,
            "exit_group": 231,
        },
    ),
    "aarch64": Machine(
        audit_arch=0xC00000B7,
        seccomp=277,
        numbers={
            "read": 63,
            "write": 64,
            "exit": 93,
            "exit_group": 94,
            "futex": 98,
            "clock_gettime": 113,
            "sched_getaffinity": 123,
            "rt_sigreturn": 139,
            "brk": 214,
            "munmap": 215,
            "mremap": 216,
            "mmap": 222,
            "mprotect": 226,
        },
    ),
}

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL = Instruction(_RETURN, 0, 0, 0x7FFF0000), Instruction(_RETURN, 0, 0, 0x80000000)
REFUSE = Instruction(_RETURN, 0, 0, 0x00050000 | errno.EPERM)


def program(machine: Machine) -> list[Instruction]:
    """The filter for a kind of processor."""
    code = [Instruction(_LOAD, 0, 0, _ARCH_AT), Instruction(_EQUAL, 1, 0, machine.audit_arch), KILL]
    code.append(Instruction(_LOAD, 0, 0, _NUMBER_AT))
    if machine.foreign_bit:
        code += [Instruction(_ANY_BIT, 0, 1, machine.foreign_bit), KILL]
    for call in ALLOWED:
        verdict = _verdict(call)
        code += [Instruction(_EQUAL, 0, len(verdict), machine.numbers[call.name]), *verdict]
    return [*code, REFUSE]


def _verdict(call: Allowed) -> list[Instruction]:
    if call.argument is None:
        return [ALLOW]
    code = [Instruction(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * call.argument)]  # little-endian: the low half comes first
    if call.not_bits:
        return [*code, Instruction(_ANY_BIT, 0, 1, call.not_bits), REFUSE, ALLOW]
    code += [Instruction(_EQUAL, left, 0, value) for left, value in zip(_down(call.values), call.values, strict=True)]
    return [*code, REFUSE, ALLOW]


def _down(values: tuple[int, ...]) -> range:
    """The number of instructions from each comparison to ALLOW."""
    return range(len(values), 0, -1)


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("code", ctypes.POINTER(_Instruction)))


_SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1
_PR_SET_NO_NEW_PRIVS = 38


def filter_system_calls() -> None:
    """Filters the calls of all threads of this process, for good. Raises OSError where the system has no filter."""
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        system = f"{platform.system()} on {platform.machine()}"
        raise OSError(errno.ENOSYS, f"no filter of system calls for {system}; there is one for Linux on x86-64, arm64")
    code = program(machine)
    instructions = (_Instruction * len(code))(*(_Instruction(*instruction) for instruction in code))
    wanted = _Program(len(code), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    for refused in (
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        libc.syscall(machine.seccomp, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, ctypes.byref(wanted)),
    ):
        if refused:
            number = ctypes.get_errno()
            raise OSError(number, f"the kernel takes no filter of system calls: {os.strerror(number)}")
