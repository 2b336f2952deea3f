"""Nothing that code inside the decoding process tries gets it out, whoever the process runs as."""

import functools
import json
import os
import platform
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helios_services.media.decoding import environment
from services.media import escapes

NOBODY = pwd.getpwnam("nobody").pw_uid
USERS = sorted({os.getuid(), NOBODY if os.getuid() == 0 else os.getuid()})
HARMLESS = {"advise on another's memory", "a mount", "a module"}
"""Tries that fail by themselves, unconfined, for want of a place or a permission."""


def attempt(user_id: int, state: str, killer: str = "") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, str(Path(escapes.__file__)), str(user_id), state, *([killer] if killer else [])]
    return subprocess.run(command, env=environment(), capture_output=True, timeout=300, check=False)


@functools.cache
def outcomes(user_id: int, state: str) -> dict[str, str]:
    """What each try met."""
    done = attempt(user_id, state)
    assert done.returncode == 0, done.stderr
    met: dict[str, str] = json.loads(done.stdout)
    return met


@pytest.mark.parametrize("user_id", USERS)
def test_every_try_is_refused_by_the_filter(user_id: int) -> None:
    met = outcomes(user_id, "confined")
    assert len(met) > 70
    assert {name: error for name, error in met.items() if error != "EPERM"} == {}


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user may be refused some of them anyway")
def test_the_same_tries_succeed_without_the_confinement() -> None:
    met = outcomes(os.getuid(), "free")
    assert {name for name, error in met.items() if error != escapes.ESCAPED} <= HARMLESS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no second ABI of 64-bit processes")
@pytest.mark.parametrize("killer", ["x32", "32 bit"])
def test_a_call_by_another_abi_is_the_end(killer: str) -> None:
    # a kernel without 32-bit calls ends the process by SIGSEGV before the filter sees them
    assert -attempt(os.getuid(), "confined", killer).returncode in (signal.SIGSYS, signal.SIGSEGV)
    assert -attempt(os.getuid(), "confined", "x32").returncode == signal.SIGSYS
