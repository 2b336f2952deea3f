"""Forwards of the DiT as CUDA graphs: one replay instead of some thousand launches. One graph for each set of shapes.

A graph reads and writes fixed memory. Inputs are copied into it first; the prompt's keys and values only when they
change. A graph knows addresses and keeps nothing alive, so the memory that it reads is kept beside it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import torch

from helios_engine.model.attention import TextKeysValues
from helios_engine.model.transformer import HeliosTransformer, History
from helios_kernels.backend import refuse_gradient

Work = Callable[[], torch.Tensor]
RecordFn = Callable[[Work], Work]
"""Turns work on fixed memory into a replay of it, which returns the same tensor each time."""

WARM_UPS = 2
"""Runs before the recording, in which kernels are compiled, attention is timed and libraries take workspaces."""
MAX_SHAPES = 12
"""Graphs that are kept: four sizes of video, three pyramid stages each. The least recently used goes first."""


class CudaRecorder:
    """Records CUDA graphs. They share their memory, so they must never run at the same time.

    device: where the work runs; None means the current device. The recorder has two streams of its own: torch's stream
    for recordings belongs to the device that recorded first, and each further stream that multiplies matrices takes a
    workspace.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._warm_up, self._capture = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def __call__(self, work: Work) -> Work:
        """See RecordFn."""
        with torch.cuda.device(self._capture.device):
            self._warm_up.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._warm_up):
                for _ in range(WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(self._warm_up)
            graph = torch.cuda.CUDAGraph()
            # another thread may allocate or page-lock memory meanwhile: that is no part of this recording
            with torch.cuda.graph(graph, pool=self._pool, stream=self._capture, capture_error_mode="thread_local"):
                out = work()

        def replay() -> torch.Tensor:
            graph.replay()
            return out

        return replay


@dataclass(kw_only=True)
class _Prompt:
    """Fixed memory of keys and values. given: what was copied into it last."""

    given: list[TextKeysValues]
    text: list[TextKeysValues]


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """A replay, and all the memory that it reads, besides the weights."""

    latents: torch.Tensor
    timestep: torch.Tensor
    history: History
    prompt: _Prompt
    table_LP: torch.Tensor
    replay: Work


class GraphedForward:
    """A drop-in for the transformer's forward, with timesteps as tensors. Not safe for concurrent calls."""

    def __init__(self, transformer: HeliosTransformer, record: RecordFn) -> None:
        self._transformer, self._record = transformer, record
        self._prompts = WeakValueDictionary[tuple[object, ...], _Prompt]()  # each as long as a graph reads it
        self._recorded = OrderedDict[tuple[object, ...], _Recorded]()

    @property
    def shapes(self) -> list[torch.Size]:
        """Latent shapes that have been recorded."""
        return [recorded.latents.shape for recorded in self._recorded.values()]

    def __call__(
        self, latents_BCThw: torch.Tensor, timestep: torch.Tensor, history: History, text: list[TextKeysValues]
    ) -> torch.Tensor:
        """See `HeliosTransformer.forward`. Raises RuntimeError where a gradient is needed."""
        if torch.is_grad_enabled():
            refuse_gradient("GraphedForward", latents_BCThw, history.tokens_BND, *self._transformer.parameters())
        prompt_key = (text[0].k_BLHK.shape, text[0].last_counts)
        prompt = self._prompts.get(prompt_key)
        if prompt is None:
            prompt = self._prompts[prompt_key] = _Prompt(given=text, text=_copies(text))
        elif prompt.given is not text:
            for mine, given in zip(prompt.text, text, strict=True):
                mine.k_BLHK.copy_(given.k_BLHK)
                mine.v_BLHK.copy_(given.v_BLHK)
            prompt.given = text
        key = (*prompt_key, latents_BCThw.shape, history.tokens_BND.shape, history.height, history.anchored)
        recorded = self._recorded.get(key)
        if recorded is None:
            while len(self._recorded) >= MAX_SHAPES:
                self._recorded.popitem(last=False)
            recorded = self._recorded[key] = self._new(latents_BCThw, timestep, history, prompt)
        self._recorded.move_to_end(key)
        recorded.latents.copy_(latents_BCThw)
        recorded.timestep.copy_(timestep)
        recorded.history.tokens_BND.copy_(history.tokens_BND)
        return recorded.replay().clone()  # the next replay overwrites it

    def _new(self, latents: torch.Tensor, timestep: torch.Tensor, history: History, prompt: _Prompt) -> _Recorded:
        latents, timestep = latents.clone(memory_format=torch.contiguous_format), timestep.clone()
        history = replace(history, tokens_BND=history.tokens_BND.clone())
        table_LP = self._transformer.table(latents, history)
        replay = self._record(lambda: self._transformer(latents, timestep, history, prompt.text, table_LP))
        return _Recorded(
            latents=latents, timestep=timestep, history=history, prompt=prompt, table_LP=table_LP, replay=replay
        )


def _copies(text: list[TextKeysValues]) -> list[TextKeysValues]:
    return [kv._replace(k_BLHK=kv.k_BLHK.clone(), v_BLHK=kv.v_BLHK.clone()) for kv in text]
