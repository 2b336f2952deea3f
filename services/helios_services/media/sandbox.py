"""Runs a command that may crash, hang or babble: bounded time, bounded output, nothing left behind."""

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PIECE = 1 << 16
MAX_STDERR_BYTES = 2000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """timeout_s: wall time. max_output_bytes: of standard output."""

    timeout_s: float
    max_output_bytes: int


@dataclass(kw_only=True)
class Outcome:
    """How a command ended. exit_code: minus the signal if one killed it; both flags mean that this side did."""

    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    exit_code: int = 0
    timed_out: bool = False
    too_much_output: bool = False


def run_bounded(command: Sequence[str], environ: Mapping[str, str], parts: Sequence[bytes], limits: Limits) -> Outcome:
    """Feeds `parts` to the command and reads what it writes, until it ends or breaks a limit; then it is killed.

    Keeps the first MAX_STDERR_BYTES of standard error. Blocks. Raises OSError if the command cannot be started.
    """
    deadline = time.monotonic() + limits.timeout_s
    outcome = Outcome()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environ), cwd="/") as process:
        try:
            _exchange(process, parts, outcome, limits, deadline)
            if not outcome.too_much_output:
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, TimeoutError):
            outcome.timed_out = True
        finally:
            process.kill()  # by its id; nothing happens if it has ended
            outcome.exit_code = process.wait()
    return outcome


def _exchange(
    process: "subprocess.Popen[bytes]", parts: Sequence[bytes], outcome: Outcome, limits: Limits, deadline: float
) -> None:
    """Until both outputs are closed. Raises TimeoutError at the deadline."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    unsent = [memoryview(part) for part in parts]
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ, outcome.output)
        selector.register(process.stderr, selectors.EVENT_READ, outcome.errors)
        open_outputs = 2
        while open_outputs:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            for key, _ in selector.select(left_s):
                if key.fileobj is process.stdin:
                    if not _send(key.fd, unsent):
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                piece = os.read(key.fd, PIECE)
                if not piece:
                    selector.unregister(key.fileobj)
                    open_outputs -= 1
                elif key.fileobj is process.stderr:
                    outcome.errors.extend(piece[: MAX_STDERR_BYTES - len(outcome.errors)])
                else:
                    room = limits.max_output_bytes - len(outcome.output)
                    outcome.output.extend(piece[:room])
                    if len(piece) > room:
                        outcome.too_much_output = True
                        return


def _send(pipe: int, unsent: list[memoryview]) -> bool:
    """Writes what fits. False when there is nothing left to write, or nobody who reads it."""
    try:
        unsent[0] = unsent[0][os.write(pipe, unsent[0][:PIECE]) :]
    except BlockingIOError:
        return True
    except BrokenPipeError:
        return False
    if not unsent[0]:
        unsent.pop(0)
    return bool(unsent)
