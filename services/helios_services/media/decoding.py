"""Sends a file to a decoding process and turns every way in which that ends into pixels or an error."""

import os
import signal
import sys

import numpy as np
from numpy.typing import NDArray

from helios_services.media.errors import MediaError, MediaReason, SandboxError
from helios_services.media.sandbox import Limits, Outcome, run_bounded
from helios_services.media.wire import GREETING, Answer, Request, read_answer

COMMAND = (sys.executable, "-s", "-P", "-B", "-m", "helios_services.media.decode_child")
_INHERITED = ("LD_LIBRARY_PATH",)  # a Python that was built elsewhere may not start without it


def decode(data: bytes, request: Request, *, timeout_s: float) -> tuple[NDArray[np.uint8], Answer]:
    """All pixels of the answer, (frames, H, W, 3), writable. Raises MediaError, SandboxError, OSError."""
    if request.max_answer_bytes + request.size_bytes > request.memory_bytes:
        needed = request.max_answer_bytes + request.size_bytes
        raise ValueError(f"memory_bytes: {request.memory_bytes} is not allowed; allowed: more than {needed}")
    limits = Limits(timeout_s=timeout_s, max_output_bytes=request.max_answer_bytes)
    outcome = run_bounded(COMMAND, environment(), [request.to_bytes(), data], limits)
    detail = outcome.errors.decode(errors="replace")
    if not outcome.output.startswith(GREETING):
        state = f"no start within {timeout_s} s" if outcome.timed_out else f"exit code {outcome.exit_code}"
        raise SandboxError(f"decoding process: {state}; {detail!r}")
    field = "clip" if request.clip else "image"
    if failure := _failure(outcome, request, timeout_s):
        reason, text = failure
        raise MediaError(reason, f"{field}: {text}", detail)
    try:
        answer = read_answer(outcome.output, request)
    except MediaError as error:
        raise MediaError(error.reason, error.message, detail) from None
    except ValueError as error:
        text = f"{field}: the data breaks the decoder"
        raise MediaError(MediaReason.UNREADABLE, text, f"{error}; {detail}") from None
    pixels = np.frombuffer(outcome.output, np.uint8, offset=answer.offset)
    return pixels.reshape(-1, request.height, request.width, 3), answer


def environment() -> dict[str, str]:
    """The least that the process needs to import what the worker can import."""
    paths = (os.path.abspath(path) for path in sys.path if path)
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # one thread for numpy's linear algebra: its pool would take address space
    return {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **kept}


def _failure(outcome: Outcome, request: Request, timeout_s: float) -> tuple[MediaReason, str] | None:
    if outcome.timed_out:
        return MediaReason.TOO_COMPLEX, f"decoding takes longer than the {timeout_s:g} s it may take"
    if outcome.too_much_output:
        return MediaReason.UNREADABLE, "the data breaks the decoder"
    if outcome.exit_code == -signal.SIGXCPU:
        return MediaReason.TOO_COMPLEX, f"decoding takes more than the {request.cpu_s} s of CPU time it may use"
    if outcome.exit_code == -signal.SIGKILL:  # nobody here sent it: the kernel was out of memory
        return MediaReason.TOO_COMPLEX, "decoding needs more memory than there is"
    if outcome.exit_code != 0:
        return MediaReason.UNREADABLE, "the data breaks the decoder"
    return None
