"""Which attention kernel is taken: the fastest by the clock, once per shape, never one that computes something else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from engine.parallel.tiny import Case, tiny_model, velocities
from engine.test_acceleration import model, prompt, request
from helios_engine.configs import SchedulerConfig
from helios_engine.ops import attention_backends
from helios_engine.ops.attention_backends import AttendFn, Chooser, attention_by, torchs_choice
from helios_engine.options import AttentionKernel
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Axis, Mesh
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState

CPU = torch.device("cpu")


class Clock:
    """Says how long each candidate takes instead of timing it; the candidate has to be run once for that."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.asked, self._ran = seconds, list[str](), ""

    def candidate(self, name: str, attend: AttendFn = torchs_choice) -> AttendFn:
        def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self._ran = name
            return attend(q, k, v)

        return run

    def __call__(self, work: Callable[[], object]) -> float:
        work()
        self.asked.append(self._ran)
        return self.seconds[self._ran]


def qkv(queries: int = 5, keys: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, length, 3, 8, generator=generator) for length in (queries, keys, keys)]


def chosen(clock: Clock, **others: AttendFn) -> str:
    """The name of the choice among torch's and the given candidates."""
    named = {name: clock.candidate(name, attend) for name, attend in {"torch": torchs_choice, **others}.items()}
    chooser = Chooser(named, clock)
    attend = chooser.fastest(*qkv())
    assert torch.equal(attend(*qkv()), torchs_choice(*qkv()))
    (name,) = chooser.choices.values()
    assert attend is named[name]
    return name


def test_the_fastest_is_taken() -> None:
    assert chosen(Clock({"torch": 3.0, "a": 2.0, "b": 1.0}), a=torchs_choice, b=torchs_choice) == "b"
    assert chosen(Clock({"torch": 1.0, "a": 2.0}), a=torchs_choice) == "torch"


def test_near_ties_go_to_the_earlier_one() -> None:
    assert chosen(Clock({"torch": 1.0, "a": 0.96}), a=torchs_choice) == "torch"
    assert chosen(Clock({"torch": 1.0, "a": 0.94}), a=torchs_choice) == "a"
    # each has to beat what was preferred before it, not the first
    assert chosen(Clock({"torch": 1.0, "a": 0.9, "b": 0.87}), a=torchs_choice, b=torchs_choice) == "a"
    assert chosen(Clock({"torch": 1.0, "a": 0.97, "b": 0.94}), a=torchs_choice, b=torchs_choice) == "b"


def test_kernels_are_run_and_timed_on_the_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    current = list[torch.Tensor]()

    @contextmanager
    def on_device(x: torch.Tensor) -> Iterator[None]:
        current.append(x)
        yield
        current.pop()

    def guarded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        assert current[0] is q, "events and kernels would be the current device's"
        return torchs_choice(q, k, v)

    monkeypatch.setattr(attention_backends, "on_device", on_device)
    clock = Clock({"torch": 1.0})
    Chooser({"torch": clock.candidate("torch", guarded)}, clock).fastest(*qkv())
    assert clock.asked == ["torch"]
    assert not current


def test_what_raises_or_computes_something_else_is_left_out() -> None:
    def broken(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel for this shape")

    def not_a_number(q: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return q * float("nan")

    clock = Clock({"torch": 9.0, "broken": 1.0, "unscaled": 1.0, "nan": 1.0, "good": 5.0})
    others = {"broken": broken, "unscaled": lambda q, k, v: torchs_choice(2 * q, k, v), "nan": not_a_number}
    assert chosen(clock, **others, good=torchs_choice) == "good"
    assert clock.asked == ["torch", "good"]


def test_each_shape_is_timed_once() -> None:
    clock = Clock({"torch": 1.0, "a": 2.0})
    chooser = Chooser({name: clock.candidate(name) for name in ("torch", "a")}, clock)
    for _ in range(3):
        chooser.fastest(*qkv())
    assert len(clock.asked) == 2
    clock.seconds["a"] = 0.5  # a longer sequence may have another winner
    chooser.fastest(*qkv(keys=11))
    assert len(clock.asked) == 4
    assert list(chooser.choices.values()) == ["torch", "a"]


def test_a_shape_can_be_asked_for_without_tensors() -> None:
    clock = Clock({"torch": 2.0, "a": 1.0})
    chooser = Chooser({name: clock.candidate(name) for name in ("torch", "a")}, clock)
    q, k, _ = qkv()
    attend = chooser.fastest_for(q.shape, k.shape, q.dtype, q.device)
    assert attend is chooser.fastest(*qkv())
    assert clock.asked == ["torch", "a"]


def test_on_a_cpu_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> AttendFn:
        raise AssertionError("timed")

    monkeypatch.setattr(attention_backends.CHOOSER, "fastest", refuse)
    assert torch.equal(attention_backends.sdpa(*qkv()), torchs_choice(*qkv()))


class Counted:
    """A kernel of our own under a name; it is torch's."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torchs_choice(q, k, v)


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Stands for that kernel; nothing may be timed."""
    kernel = Counted()
    monkeypatch.setattr(attention_backends, "candidates", lambda: {"torch": torchs_choice, "cudnn": kernel})
    monkeypatch.setattr(attention_backends, "CHOOSER", None)
    return kernel


def test_a_named_kernel_computes_all_attention(cudnn: Counted) -> None:
    state = DenoiseState.initial(request())
    latents = Denoiser(model(), SchedulerConfig(), attention="cudnn").denoise_chunk(state, prompt(seed=2, tokens=512))[
        0
    ]
    assert cudnn.calls == 1 + 3 * 2 * 2  # tried once; three stages of two blocks, each of the text and of the tokens
    plain = Denoiser(model(), SchedulerConfig()).denoise_chunk(state, prompt(seed=2, tokens=512))[0]
    assert torch.equal(latents, plain)


def test_a_named_kernel_computes_the_attention_of_a_rank(cudnn: Counted) -> None:
    case, alone = Case(), Axis(size=1, index=0, group=None)
    mesh = Mesh(parallel=ContextParallel(), cfg=alone, ring=alone, ulysses=alone, context=alone)
    sharded = ParallelTransformer(tiny_model(case), mesh)
    sharded.use_attention(cudnn)
    velocities(case, sharded)
    assert cudnn.calls == len(case.sizes) * case.layers * 2


@pytest.mark.parametrize("name", ["cudnn", "flash_attention_3"])
def test_a_kernel_that_cannot_run_here_is_refused(name: AttentionKernel) -> None:
    with pytest.raises(ValueError, match=rf"attention: '{name}' is not allowed .* on cpu; allowed: 'auto', 'torch'$"):
        attention_by(name, 2, 8, torch.float32, CPU)
    assert attention_by("torch", 2, 8, torch.float32, CPU) is torchs_choice


def test_a_kernel_that_takes_tensors_and_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As cuDNN's did with float32: right for zeros, which is all that a probe of zeros sees."""

    def garbage(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torchs_choice(2 * q, k, v)

    def not_finite(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torchs_choice(q, k, v) / 0.0

    for wrong in (garbage, not_finite):
        monkeypatch.setattr(attention_backends, "candidates", lambda w=wrong: {"torch": torchs_choice, "cudnn": w})
        with pytest.raises(ValueError, match="attention: 'cudnn' is not allowed"):
            attention_by("cudnn", 2, 8, torch.float32, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_every_kernel_that_runs_agrees() -> None:
    q, k, v = (x.cuda().bfloat16() for x in (torch.randn(1, 640, 4, 128) for _ in range(3)))
    chooser = Chooser(attention_backends.candidates(), attention_backends.gpu_seconds)
    chooser.fastest(q, k, v)
    (seconds,) = chooser.seconds.values()
    assert {"torch", "flash"} <= set(seconds)
