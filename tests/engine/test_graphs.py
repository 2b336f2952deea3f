"""What recorded forwards keep and let go: a CUDA graph reads addresses, whoever owns the memory behind them."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.test_acceleration import model, prompt, recomputed, request
from helios_engine.accelerate import graphs as module
from helios_engine.accelerate.graphs import WARM_UPS, CudaRecorder, GraphedForward, Work
from helios_engine.configs import SchedulerConfig
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState


class Inputs(TorchDispatchMode):
    """Collects the memory that operators read and that none of them has made: what a graph would read at replays."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages, self._made = dict[int, StorageWeakRef](), dict[int, torch.UntypedStorage]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fresh = func is torch.ops.aten.lift_fresh.default  # a number that becomes a tensor here
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._made and not fresh:
                self.storages.setdefault(storage._cdata, StorageWeakRef(storage))
        out = func(*args, **(kwargs or {}))
        self._made |= {storage._cdata: storage for storage in _storages(out) if storage._cdata not in self.storages}
        return out


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def watched(inputs: list[StorageWeakRef], seen: list[int]) -> Callable[[Work], Work]:
    """Records as `recomputed`; adds what the work reads from outside to `inputs`."""

    def record(work: Work) -> Work:
        with Inputs() as mode:
            work()
        inputs.extend(mode.storages.values())
        seen.append(len(mode.storages))
        mode._made.clear()
        return recomputed(work)

    return record


def graphed(record: Callable[[Work], Work]) -> tuple[Denoiser, GraphedForward]:
    denoiser = Denoiser(model(), SchedulerConfig())
    graphs = denoiser._graphs = GraphedForward(denoiser.transformer, record)  # type: ignore[arg-type]
    return denoiser, graphs


def chunk(denoiser: Denoiser, tokens: int = 9) -> torch.Tensor:
    return denoiser.denoise_chunk(DenoiseState.initial(request()), prompt(tokens=tokens))[0]


def test_what_a_graph_reads_lives_as_long_as_the_graph() -> None:
    inputs, seen = list[StorageWeakRef](), list[int]()
    denoiser, graphs = graphed(watched(inputs, seen))
    first = chunk(denoiser)
    parameters = len(list(denoiser.transformer.parameters()))
    assert min(seen) > parameters / 2  # weights, inputs, keys and values, rotations: the measure sees them
    denoiser.transformer.rotary.cache_clear()  # type: ignore[operator, union-attr]
    denoiser.forget_prompts()
    gc.collect()
    assert not any(storage.expired() for storage in inputs)
    assert torch.equal(chunk(denoiser), first)
    assert len(graphs.shapes) == 3


def test_a_bounded_number_of_graphs_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SHAPES", 3)
    replays = list[weakref.ref[Work]]()

    def record(work: Work) -> Work:
        replay = recomputed(work)
        replays.append(weakref.ref(replay))
        return replay

    denoiser, graphs = graphed(record)
    plain = Denoiser(model(), SchedulerConfig())
    for tokens, recorded in ((9, 3), (9, 3), (5, 6), (9, 9)):
        assert torch.equal(chunk(denoiser, tokens), chunk(plain, tokens))
        gc.collect()
        assert [replay() is not None for replay in replays] == [False] * (recorded - 3) + [True] * 3
        assert len(graphs._prompts) == 1  # keys and values that no graph reads any more are let go


def test_the_shape_that_waited_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SHAPES", 3)
    denoiser, graphs = graphed(recomputed)
    chunk(denoiser)
    coarse, _, fine = graphs.shapes
    (entry,) = denoiser._text._entries
    with torch.inference_mode():
        history = denoiser.transformer.encode_history(torch.ones(1, 16, 19, 8, 8), torch.ones(1, 16, 1, 8, 8))
        timestep = torch.tensor([0.0, 500.0])
        for shape in (coarse, torch.Size((1, 16, 9, 4, 8))):
            graphs(torch.ones(shape), timestep, history, entry.text)
    assert graphs.shapes == [fine, coarse, torch.Size((1, 16, 9, 4, 8))]


def test_a_recording_belongs_to_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another device current: streams, warm-ups, the recording and its events are those of the recorder's."""
    current, log = [0], list[tuple[str, Any]]()

    @contextmanager
    def device(index: int) -> Iterator[None]:
        before, current[0] = current[0], index
        yield
        current[0] = before

    class Stream(SimpleNamespace):
        def wait_stream(self, other: "Stream") -> None:
            assert self.device == other.device

    @contextmanager
    def on_stream(stream: Stream) -> Iterator[None]:
        assert current[0] == stream.device, "what torch.cuda.graph waits for is the current device's"
        log.append(("stream", stream))
        yield

    def graph(recorded: Any, pool: Any, stream: Stream, capture_error_mode: str) -> Any:
        assert capture_error_mode == "thread_local", "what other threads allocate meanwhile would end the recording"
        log.append(("graph", recorded))
        return on_stream(stream)

    class Graph:
        def replay(self) -> None:
            log.append(("replay", self))

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "Stream", lambda on: Stream(device=on))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(device=current[0]))
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)

    out = torch.zeros(1)

    def work() -> torch.Tensor:
        log.append(("work", current[0]))
        return out

    replay = CudaRecorder(1)(work)  # type: ignore[arg-type]
    assert replay() is out
    assert [name for name, _ in log] == ["stream", *["work"] * WARM_UPS, "graph", "stream", "work", "replay"]
    assert {on for name, on in log if name == "work"} == {1}
    assert log[-1][1] is next(recorded for name, recorded in log if name == "graph")
    warm_up, capture = (stream for name, stream in log if name == "stream")
    assert warm_up is not capture
