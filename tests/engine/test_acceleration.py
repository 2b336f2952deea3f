"""Compiled blocks and recorded forwards compute the same; the host never waits for the device within a chunk."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helios_engine.accelerate.compiling import CACHES, compile_blocks
from helios_engine.accelerate.graphs import GraphedForward
from helios_engine.configs import SchedulerConfig, SolverConfig, TransformerConfig
from helios_engine.errors import InvalidField
from helios_engine.loading.denoiser import load_denoiser
from helios_engine.loading.tiny import random_weights, write_tiny
from helios_engine.model import transformer as transformer_module
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.request import GenerationRequest, LoraWeight
from helios_engine.sampling import denoiser as denoiser_module
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.variants import make_request

CONFIG = TransformerConfig(
    num_attention_heads=2,
    attention_head_dim=24,
    text_dim=32,
    freq_dim=32,
    ffn_dim=96,
    num_layers=2,
    rope_dim=(8, 8, 8),
    is_amplify_history=True,
)
TOLERANCE = 1e-4
"""Relative, float32."""


def model(layers: int = 2) -> HeliosTransformer:
    transformer = HeliosTransformer(replace(CONFIG, num_layers=layers)).eval().requires_grad_(False)
    shapes = {name: parameter.shape for name, parameter in transformer.named_parameters()}
    transformer.load_state_dict(random_weights(shapes, torch.Generator().manual_seed(3)))
    return transformer


def request(variant: str = "distilled", **options: Any) -> GenerationRequest:
    steps = {"pyramid_steps": (1, 1, 1)} if variant != "base" else {"num_inference_steps": 1}
    return make_request(variant, prompt="a lake", height=64, width=64, num_frames=33, seed=5, **steps, **options)


def prompt(seed: int = 2, tokens: int = 9) -> torch.Tensor:
    embeds = torch.zeros(1, 512, 32)
    embeds[:, :tokens] = torch.randn(1, tokens, 32, generator=torch.Generator().manual_seed(seed))
    return embeds


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def test_a_compiled_block_computes_the_same() -> None:
    torch.compiler.reset()
    outputs = []
    for compiled in (True, False):
        transformer = model(layers=1)
        if compiled:
            compile_blocks(transformer)
        generator = torch.Generator().manual_seed(1)
        past, anchor, latents = (torch.randn(1, 16, t, 4, 4, generator=generator) for t in (19, 1, 9))
        with torch.inference_mode():
            history, text = transformer.encode_history(past, anchor), transformer.encode_text(prompt())
            outputs.append(transformer(latents, 700.0, history, text))
    assert 0 < error(*outputs) < TOLERANCE  # other bits: the compiled code did run


def test_one_compiled_program_serves_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    transformer = model()
    compile_blocks(transformer)
    for block in transformer.blocks:
        block.compile(dynamic=False, backend=counter)
    denoiser = Denoiser(transformer, SchedulerConfig())
    denoiser.denoise_chunk(DenoiseState.initial(request()), prompt())
    # three stages, each with the last block's shape, whatever the number of blocks
    assert counter.frame_count == 6


def recomputed(work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """What a CUDA graph does, on a CPU: every replay reads and writes the memory of the recording."""
    out = work().clone()
    return lambda: out.copy_(work())


def graphed(**options: Any) -> tuple[Denoiser, GraphedForward]:
    transformer = model()
    denoiser = Denoiser(transformer, SchedulerConfig(**options))
    graphs = denoiser._graphs = GraphedForward(transformer, recomputed)
    return denoiser, graphs


def test_recorded_forwards_read_this_chunks_inputs() -> None:
    (denoiser, graphs), plain = graphed(), Denoiser(model(), SchedulerConfig())
    state = expected_state = DenoiseState.initial(request())
    for seed in (2, 2, 7):  # the history changes, then the prompt as well
        latents, state = denoiser.denoise_chunk(state, prompt(seed))
        expected, expected_state = plain.denoise_chunk(expected_state, prompt(seed))
        assert torch.equal(latents, expected)
    assert len(graphs.shapes) == 3  # the stages


@pytest.mark.parametrize("batching", ["always", "never"])
def test_recorded_forwards_of_two_prompts_do_not_overwrite_each_other(batching: Any) -> None:
    options: dict[str, Any] = {"guidance_batching": batching, "zero_star": True}
    config = SolverConfig()
    chunks = []
    for graphs in (True, False):
        transformer = model()
        denoiser = Denoiser(transformer, config, **options)
        if graphs:
            denoiser._graphs = GraphedForward(transformer, recomputed)
        state = DenoiseState.initial(request("mid", zero_init=False))
        chunks.append(denoiser.denoise_chunk(state, prompt(), prompt(8))[0])
    assert torch.equal(*chunks)


@pytest.mark.parametrize("variant", ["distilled", "mid"])
def test_warm_up_runs_every_stage(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Denoiser(model(), SolverConfig() if variant == "mid" else SchedulerConfig(), zero_star=variant == "mid")
    seen = []
    denoiser.transformer.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    denoiser.warm_up(request(variant))
    assert seen == [(2, 2), (4, 4), (8, 8)]
    assert not denoiser._text._entries  # no prompt's place is taken


def test_a_warm_up_that_fails_leaves_the_cached_prompts() -> None:
    denoiser = Denoiser(model(), SchedulerConfig())
    encoded = denoiser._encode_text(prompt())
    with pytest.raises(InvalidField, match="loras"):
        denoiser.warm_up(replace(request("distilled"), loras=(LoraWeight(name="none of this model's"),)))
    assert denoiser._encode_text(prompt()) is encoded


COMPILE_ONE_BLOCK = """
import sys
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from engine.test_acceleration import model, prompt
from helios_engine.accelerate.compiling import CACHES, compile_blocks, use_cache

use_cache(Path(sys.argv[1]))
transformer = model(layers=1)
compile_blocks(transformer)
with torch.inference_mode():
    history = transformer.encode_history(torch.ones(1, 16, 19, 4, 4), torch.ones(1, 16, 1, 4, 4))
    transformer(torch.ones(1, 16, 9, 2, 2), 700.0, history, transformer.encode_text(prompt()))
print(counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"])
"""


def test_compiled_code_is_kept_for_the_next_process(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    found = []
    for _ in range(2):
        command = [sys.executable, "-c", COMPILE_ONE_BLOCK, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(tuple(map(int, done.stdout.split())))
        assert any((tmp_path / "inductor").rglob("*.so"))
    (_, missed), (hits, missed_again) = found
    assert missed > 0
    assert (hits, missed_again) == (missed, 0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"compile": "graphs"}, "compile: 'graphs' is not allowed on cpu"),
        ({"compile": "regional", "offload_budget_bytes": 10**9}, "offload_budget_bytes"),
        ({"fp8": True, "offload_budget_bytes": 10**9}, "offload_budget_bytes"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    write_tiny(tmp_path)
    with pytest.raises(ValueError, match=named):
        load_denoiser(tmp_path, dtype=torch.float32, **options)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device: values read back, and copies that are not said to be asynchronous.

    The meta device stands for a GPU: its tensors take every operator but those that need values.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero"}:
            raise AssertionError(f"{name} waits for the device")
        if name == "aten::_to_copy" and "device" in kwargs and kwargs["device"] != args[0].device:
            assert kwargs.get("non_blocking"), "a copy between devices waits"
        if name == "aten::copy_" and args[0].device != args[1].device:
            assert args[2:] == (True,), "a copy between devices waits"
        return func(*args, **kwargs)


def sample_on_meta(monkeypatch: pytest.MonkeyPatch, variant: str = "distilled") -> torch.Tensor:
    """A chunk's latents on the meta device, under NoWaiting."""
    tensor = torch.tensor

    def on_host(*args: Any, **options: Any) -> torch.Tensor:
        assert torch.device(options.get("device", "cpu")).type == "cpu", "torch.tensor on a device waits"
        return tensor(*args, **options)

    monkeypatch.setattr(torch, "tensor", on_host)
    config = SolverConfig() if variant == "mid" else SchedulerConfig()
    denoiser = Denoiser(model().to("meta"), config, zero_star=variant == "mid")
    state = DenoiseState.initial(request(variant))
    with torch.no_grad(), NoWaiting():  # type: ignore[no-untyped-call]  # in inference mode composite operators hide what they do
        return denoiser._latents(state, prompt(), prompt(8), state.generator())


@pytest.mark.parametrize("variant", ["distilled", "mid"])
def test_the_host_does_not_wait_within_a_chunk(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = sample_on_meta(monkeypatch, variant)
    assert latents.device.type == "meta"
    assert latents.shape == (1, 16, 9, 8, 8)


WAITING: list[tuple[Any, str, Callable[..., Any]]] = [
    (denoiser_module, "to_device", lambda x, device: x.to(device)),
    (
        denoiser_module,
        "timestep_rows",
        lambda timesteps, device: torch.tensor([[0.0, timestep] for timestep in timesteps], device=device),
    ),
    (denoiser_module, "upsample_renoise", lambda latents, noise, alpha, beta: noise * float(noise.sum())),
    (transformer_module, "unpatchify", lambda x, shape, patch: x[x.nonzero()[:1, 0]].new_zeros(shape)),
]


@pytest.mark.parametrize(("module", "name", "waiting"), WAITING)
def test_waiting_is_noticed(
    module: Any, name: str, waiting: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, waiting)
    with pytest.raises(AssertionError, match="waits"):
        sample_on_meta(monkeypatch)
