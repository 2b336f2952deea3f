"""The decoding process: what it may not do, and what happens when it misbehaves."""

import os
import pickle
import subprocess
import sys
import threading
from ast import literal_eval
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import structlog

from helios_services.config import ConfigError, MediaConfig
from helios_services.media import decoding
from helios_services.media.errors import MediaError, MediaReason, SandboxError
from helios_services.media.inputs import decode_clip, decode_image
from helios_services.media.sandbox_check import check_sandbox, for_one_machine
from helios_services.media.wire import GREETING, HEADER, REASONS, ClipJob, Request, read_answer
from services.media.files import HEIGHT, LIMITS, WIDTH, Pixels, clip, noise, steps, still

READ = "import sys, os, time; sys.stdin.buffer.read(9); "
GREET = f"{READ}os.write(1, {GREETING!r}); "
BOUNDS: dict[str, Any] = {"max_pixels": 1, "cpu_s": 9, "memory_bytes": 1 << 30, "require_filter": True}
FRAME_BYTES = HEIGHT * WIDTH * 3


@pytest.fixture(autouse=True)
def nothing_is_left_and_the_next_file_decodes() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def decode(timeout_s: float = 60.0) -> Pixels:
    limits = LIMITS.model_copy(update={"decode_timeout_s": timeout_s})
    return decode_image(still(noise()), "image/png", height=HEIGHT, width=WIDTH, limits=limits)


def fake(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(decoding, "COMMAND", (sys.executable, "-c", script))


def failure(monkeypatch: pytest.MonkeyPatch, script: str, timeout_s: float = 60.0) -> MediaError:
    with monkeypatch.context() as patch:
        fake(patch, script)
        with pytest.raises(MediaError) as caught:
            decode(timeout_s)
    assert np.array_equal(decode(), noise())
    return caught.value


@pytest.mark.parametrize(
    "script",
    [
        GREET + "time.sleep(1000)",
        GREET + "os.close(1); os.close(2); time.sleep(1000)",
        GREET + "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
        GREET + "\nwhile True: os.write(2, b'x' * 65536)",
    ],
    ids=["silent", "closed outputs", "ignores signals", "babbles on stderr"],
)
def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    for timeout_s in (0.5, 5.0, 60.0):
        try:
            error = failure(monkeypatch, script, timeout_s=timeout_s)
            break
        except SandboxError:  # it had not started by then
            continue
    assert error.reason == MediaReason.TOO_COMPLEX
    assert f"longer than the {timeout_s:g} s" in str(error)
    assert len(error.detail) <= 2000


@pytest.mark.parametrize(
    ("script", "reason", "named"),
    [
        (GREET + "os.kill(os.getpid(), 11)", MediaReason.UNREADABLE, "breaks the decoder"),
        (GREET + "os.abort()", MediaReason.UNREADABLE, "breaks the decoder"),
        (GREET + "os.kill(os.getpid(), 9)", MediaReason.TOO_COMPLEX, "more memory than there is"),
        (GREET + "sys.exit(3)", MediaReason.UNREADABLE, "breaks the decoder"),
        (GREET, MediaReason.UNREADABLE, "breaks the decoder"),
    ],
)
def test_a_process_that_dies(monkeypatch: pytest.MonkeyPatch, script: str, reason: MediaReason, named: str) -> None:
    error = failure(monkeypatch, script)
    assert error.reason == reason
    assert named in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage",
        HEADER.pack(0, 1, 0, 0) + bytes(FRAME_BYTES - 1),
        HEADER.pack(0, 1, 0, 0) + bytes(FRAME_BYTES + 1),
        HEADER.pack(0, 2, 0, 0) + bytes(FRAME_BYTES),
        HEADER.pack(0, 1, 1, 0) + bytes(2 * FRAME_BYTES),
        HEADER.pack(0, 1, 2**32 - 1, 0) + bytes(FRAME_BYTES),
        HEADER.pack(0, 1, 0, 5) + bytes(FRAME_BYTES),
        HEADER.pack(len(REASONS) + 1, 0, 0, 1) + b"x",
        HEADER.pack(1, 0, 0, 2) + b"x",
        HEADER.pack(1, 0, 0, 5000) + b"x" * 5000,
    ],
)
def test_answers_that_make_no_sense(answer: bytes) -> None:
    request = Request(content_type="image/png", size_bytes=1, height=HEIGHT, width=WIDTH, **BOUNDS, clip=None)
    with pytest.raises(ValueError) as caught:
        read_answer(GREETING + answer, request)
    assert not isinstance(caught.value, MediaError)


@pytest.mark.parametrize(("num_frames", "tail"), [(32, 32), (40, 32), (40, 34), (33, 0)])
def test_answers_for_clips_have_the_frames_asked_for(num_frames: int, tail: int) -> None:
    job = ClipJob(height=1, width=1, fps=24, keep_last=33, min_frames=33, max_pixels=1, max_frames=99, max_duration_s=9)
    request = Request(content_type="video/mp4", size_bytes=1, height=1, width=1, **BOUNDS, clip=job)
    with pytest.raises(ValueError, match=f"{num_frames} frames, {tail} of them last"):
        read_answer(GREETING + HEADER.pack(0, num_frames, tail, 0) + bytes(3 + 3 * tail), request)
    good = HEADER.pack(0, 40, 33, 0) + bytes(3 * 34)
    assert read_answer(GREETING + good, request).num_frames == 40


def test_garbage_is_the_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure(monkeypatch, GREET + "os.write(1, b'garbage' * 1000)")
    assert error.reason == MediaReason.UNREADABLE
    assert str(error) == "image: the data breaks the decoder"


def test_output_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure(monkeypatch, GREET + "\nwhile True: os.write(1, b'x' * 65536)")
    assert error.reason == MediaReason.UNREADABLE


def test_texts_of_the_process_are_made_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a\x1b[31m\xff\n\0"
    error = failure(monkeypatch, f"{GREET}sys.stdout.buffer.write({HEADER.pack(1, 0, 0, len(text)) + text!r})")
    assert str(error) == "a?[31m�??"


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("import no_such_module", "exit code 1; .*no_such_module"),
        ("print('hello')", "exit code 0"),
        ("import time; time.sleep(1000)", "no start within 0.5 s"),
    ],
)
def test_a_process_that_does_not_start_is_no_fault_of_the_file(
    monkeypatch: pytest.MonkeyPatch, script: str, named: str
) -> None:
    fake(monkeypatch, script)
    with pytest.raises(SandboxError, match=named):
        decode(timeout_s=0.5 if "sleep" in script else 60.0)


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "COMMAND", ("/no/such/python",))
    with pytest.raises(FileNotFoundError):
        decode()


def confined(script: str, *, before: str = "", require_filter: bool = True) -> "subprocess.CompletedProcess[str]":
    start = f"{before}import os, socket, resource; from helios_services.media.confine import confine; "
    start += f"confine(memory_bytes=1 << 29, cpu_s=5, require_filter={require_filter})\n"
    command = [sys.executable, "-c", start + script]
    return subprocess.run(command, env=decoding.environment(), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("open('/etc/hostname')", "PermissionError"),
        ("open('/dev/shm/helios-test', 'w')", "PermissionError"),
        ("socket.socket()", "PermissionError"),
        ("os.pipe()", "PermissionError"),
        ("os.fork()", "PermissionError"),
        ("os.close(0); open('/etc/hostname')", "PermissionError"),
        ("bytearray(1 << 29)", "MemoryError"),
        ("resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))", "not allowed"),
    ],
)
def test_a_confined_process_gets_nothing(script: str, error: str) -> None:
    assert error in confined(script).stderr


WITHOUT_FILTER = "import platform; platform.machine = lambda: 'another'\n"
LIMITED = "('AS', 'CPU', 'NOFILE', 'FSIZE', 'NPROC', 'CORE')"


def test_the_limits_stand_behind_the_filter() -> None:
    script = f"print([resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in {LIMITED}])"
    expected = [(1 << 29, 1 << 29), (5, 6), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert confined(script, before=WITHOUT_FILTER, require_filter=False).stdout.strip() == str(expected)
    for attempt in ("open('/etc/hostname')", "os.close(0); open('/etc/hostname')", "os.closerange(0, 2); os.pipe()"):
        assert "Too many open files" in confined(attempt, before=WITHOUT_FILTER, require_filter=False).stderr


def without_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    start = f"{WITHOUT_FILTER}from helios_services.media.decode_child import main; main()"
    monkeypatch.setattr(decoding, "COMMAND", (sys.executable, "-c", start))


def test_where_a_filter_is_required_and_there_is_none_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    without_filter(monkeypatch)
    assert LIMITS.require_seccomp
    with pytest.raises(SandboxError, match=r"cannot be confined: .*no filter of system calls for Linux on another"):
        decode()
    with pytest.raises(ConfigError, match=r"media\.require_seccomp.*no filter of system calls for Linux on another"):
        check_sandbox(LIMITS)


def test_on_one_machine_a_missing_filter_is_warned_of_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = for_one_machine(MediaConfig())
    with structlog.testing.capture_logs() as logs:
        check_sandbox(limits)
        assert logs == []
        without_filter(monkeypatch)
        check_sandbox(limits)
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "media_sandbox_without_seccomp")]
    assert "no filter of system calls" in logs[0]["problem"]
    required = MediaConfig(require_seccomp=True)
    assert for_one_machine(required) == required


def test_a_decoder_that_does_not_start_at_all_is_an_error_on_one_machine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "import sys; sys.exit('broken')")
    with pytest.raises(ConfigError, match="broken"):
        check_sandbox(for_one_machine(MediaConfig()))


def test_cpu_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"{GREET}from helios_services.media.confine import confine; "
    script += "confine(memory_bytes=1 << 29, cpu_s=1, require_filter=True)"
    error = failure(monkeypatch, f"{script}\nwhile True: pass")
    assert error.reason == MediaReason.TOO_COMPLEX
    assert "s of CPU time" in str(error)


def test_the_process_inherits_neither_files_nor_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOS_SECRET", "s3cret")
    script = f"{GREET}sys.stderr.write(repr((sorted(os.environ), os.listdir('/proc/self/fd'))))"
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        detail = failure(monkeypatch, script).detail
    names, descriptors = literal_eval(detail.partition("; ")[2])
    assert set(names) <= {"PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LD_LIBRARY_PATH", "LC_CTYPE"}
    assert set(descriptors) <= {"0", "1", "2", "3"}  # 3 is the listing's own


def test_the_process_dies_with_the_worker() -> None:
    script = "import os, subprocess, sys, time\nfrom helios_services.media.decoding import COMMAND, environment\n"
    script += "from helios_services.media.wire import Request\n"
    script += "child = subprocess.Popen(COMMAND, stdin=-1, stdout=-1, env=environment())\n"
    script += "request = Request(content_type='image/png', size_bytes=9, height=1, width=1, max_pixels=1, cpu_s=9, "
    script += "memory_bytes=1 << 30, require_filter=True)\n"
    script += "child.stdin.write(request.to_bytes()); child.stdin.flush(); child.stdout.read(4)\n"
    script += "print(child.pid, flush=True); hold = os.dup(child.stdin.fileno()); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", script], env=decoding.environment(), stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    child.wait(120)


def test_several_at_once() -> None:
    data, results = clip(steps(40)), []
    work = {"height": HEIGHT, "width": WIDTH, "fps": 24, "keep_last": 33}

    def one() -> None:
        results.append(decode_clip(data, "video/mp4", **work, limits=LIMITS).num_frames)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [40] * 4


def test_a_result_that_cannot_fit_is_a_mistake_of_the_configuration() -> None:
    work = {"height": 4096, "width": 4096, "fps": 24, "keep_last": 99}
    with pytest.raises(ValueError, match="memory_bytes: 2147483648 is not allowed"):
        decode_clip(clip(steps(33)), "video/mp4", **work, limits=LIMITS)


def test_errors_survive_ray() -> None:
    error = pickle.loads(pickle.dumps(MediaError(MediaReason.TOO_LONG, "clip: too long", "detail")))
    assert (error.reason, str(error), error.detail) == (MediaReason.TOO_LONG, "clip: too long", "detail")
