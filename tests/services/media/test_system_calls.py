"""The filter's program for each kind of processor, run by an interpreter of its own: no kernel here runs both."""

import errno
import mmap
import platform
import signal

import pytest

from helios_services.media import system_calls
from helios_services.media.system_calls import ALLOW, KILL, MACHINES, REFUSE, Instruction, Machine, program

ARM, X86 = MACHINES["aarch64"], MACHINES["x86_64"]


def verdict(machine: Machine, number: int, *arguments: int, arch: int | None = None) -> Instruction:
    """What the program returns for a call."""
    data = {0: number, 4: machine.audit_arch if arch is None else arch}
    data |= {16 + 8 * place: argument & 0xFFFFFFFF for place, argument in enumerate(arguments)}
    code, at, value = program(machine), 0, 0
    while True:
        step = code[at]
        at += 1
        if step.code == 0x20:  # load a word
            value = data[step.operand]
        elif step.code == 0x06:  # return
            return step
        else:
            holds = value == step.operand if step.code == 0x15 else bool(value & step.operand)
            at += step.if_true if holds else step.if_false


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_calls_are_judged_by_number_and_argument(machine: Machine) -> None:
    number = machine.numbers
    for name, arguments, expected in (
        ("read", (0, 1, 2), ALLOW),
        ("read", (3, 1, 2), REFUSE),
        ("read", (1 << 32, 1, 2), ALLOW),  # the kernel takes a descriptor as 32 bits
        ("write", (1, 0, 0), ALLOW),
        ("write", (2, 0, 0), ALLOW),
        ("write", (0, 0, 0), REFUSE),
        ("mmap", (0, 4096, mmap.PROT_READ | mmap.PROT_WRITE), ALLOW),
        ("mmap", (0, 4096, mmap.PROT_EXEC), REFUSE),
        ("mprotect", (0, 4096, 7), REFUSE),
        ("futex", (0, 128), ALLOW),  # FUTEX_WAIT_PRIVATE
        ("futex", (0, 3), REFUSE),  # FUTEX_REQUEUE
        ("futex", (0, 11), REFUSE),  # FUTEX_WAIT_REQUEUE_PI
        ("exit_group", (0,), ALLOW),
    ):
        assert verdict(machine, number[name], *arguments) == expected, (name, arguments)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_only_the_listed_calls_are_answered(machine: Machine) -> None:
    answered = {number for number in range(1024) if verdict(machine, number, 0, 0, 0) == ALLOW}
    assert answered == set(machine.numbers.values()) - {machine.numbers["write"]}  # descriptor 0 is no output


def test_calls_by_another_abi_kill() -> None:
    assert verdict(X86, 0x40000000 | X86.numbers["read"], 0) == KILL
    assert verdict(X86, X86.numbers["read"], 0, arch=0x40000003) == KILL  # 32-bit x86
    assert verdict(ARM, ARM.numbers["read"], 0, arch=0x40000028) == KILL  # 32-bit Arm


def test_verdicts_are_what_the_kernel_calls_them() -> None:
    assert REFUSE.operand == 0x50000 | errno.EPERM  # SECCOMP_RET_ERRNO
    assert ALLOW.operand == 0x7FFF0000
    assert KILL.operand == 0x80000000  # of the process, by SIGSYS
    assert signal.SIGSYS


def test_a_machine_without_a_filter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match=r"no filter of system calls for Linux on riscv64; .* x86-64, arm64"):
        system_calls.filter_system_calls()
