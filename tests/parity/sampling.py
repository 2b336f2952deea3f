"""Samples with the reference pipelines and with ours from the same weights, noting the latents after every step."""

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch

import helios_engine.sampling.denoiser as sampling
from helios_engine.request import GenerationRequest
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.solvers import Solver, make_solver
from helios_engine.sampling.state import DenoiseState
from helios_engine.variants import resolve
from parity.reference import Shape, pipeline, relative_error, schedulers, solvers, transformers, working_cholesky

Latents = list[torch.Tensor]
SCHEDULERS: dict[str, dict[str, Any]] = {
    "base": {"stages": 1, "stage_range": (0.0, 1.0), "use_dynamic_shifting": True, "time_shift_type": "linear"},
    "mid": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "distilled": {"use_dynamic_shifting": True},
}
PROMPT, NEGATIVE = (torch.randn(1, 512, 24, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8))


def request_for(shape: Shape, chunks: int, variant: str = "distilled", **options: Any) -> GenerationRequest:
    """A request with the variant's defaults filled in; its prompt is given as embedding."""
    size = {"height": shape.height, "width": shape.width, "num_frames": 33 * chunks} | options
    return resolve(GenerationRequest(prompt="given as embedding", seed=11, **size), variant)


def reference_steps(
    shape: Shape, request: GenerationRequest, variant: str = "distilled", inputs: Any = None, **scheduler: Any
) -> Latents:
    """Latents after every denoising step of the reference pipeline. inputs: further arguments of its call."""
    steps: Latents = []

    def record(_pipe: Any, _index: int, _t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        steps.append(tensors["latents"].clone())
        return {}

    make = schedulers if variant == "distilled" else solvers
    reference_scheduler, config = make(**SCHEDULERS[variant] | scheduler)
    transformer = transformers(shape)[0]
    # the reference views what it should reshape, which fails for some sizes
    transformer.register_forward_hook(lambda _module, _args, out: (out[0].contiguous(),))
    pipe = pipeline(transformer, None, reference_scheduler, zero_star=variant == "mid")
    pipe.vae.decode = lambda *_, **__: (torch.zeros(1, 3, 33, 8, 8),)  # only latents are compared
    call = pipe if request.keep_first_frame else without_anchor(pipe)
    options: dict[str, Any] = {
        "prompt_embeds": PROMPT,
        "negative_prompt_embeds": NEGATIVE,
        "height": request.height,
        "width": request.width,
        "num_frames": request.num_frames,
        "guidance_scale": request.guidance_scale,
        "is_skip_first_chunk": request.skip_first_chunk,
        "keep_first_frame": request.keep_first_frame,
        "add_noise_to_image_latents": request.condition_noise,
        "add_noise_to_video_latents": request.condition_noise,
    }
    for name in ("image", "video"):
        low, high = getattr(request, f"{name}_noise_sigma")
        options |= {f"{name}_noise_sigma_min": low, f"{name}_noise_sigma_max": high}
    if variant == "base":
        options["num_inference_steps"] = request.num_inference_steps
    else:
        options["pyramid_num_inference_steps_list"] = list(request.pyramid_steps or ())
        options["is_amplify_first_chunk"] = bool(request.amplify_first_chunk)
    if variant == "mid":
        options |= {"use_zero_init": request.zero_init, "zero_steps": request.zero_steps}
    with working_cholesky(config.gamma):
        call(
            **options | (inputs or {}),
            generator=torch.Generator().manual_seed(request.seed),
            output_type="latent",
            callback_on_step_end=record,
        )
    return steps


def without_anchor(pipe: Any) -> Callable[..., Any]:
    """The reference's call with `keep_first_frame=False` working: it forgets to make its history one frame longer."""
    function = inspect.unwrap(type(pipe).__call__)
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    source = "\n".join(lines[next(n for n, line in enumerate(lines) if line.startswith("def ")) :])
    assert source.count("num_history_latent_frames = sum(history_sizes)") == 1
    source = source.replace("= sum(history_sizes)", "= sum(history_sizes) + (not keep_first_frame)")
    names: dict[str, Any] = {}
    exec(compile(source, "mended reference", "exec"), function.__globals__, names)
    return torch.no_grad()(functools.partial(names["__call__"], pipe))


class Recorder:
    """A solver whose results are noted."""

    def __init__(self, solver: Solver, steps: Latents) -> None:
        self._solver, self._steps = solver, steps

    def step(self, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """See Solver."""
        self._steps.append(self._solver.step(latents, velocity))
        return self._steps[-1]


def our_steps(
    shape: Shape,
    request: GenerationRequest,
    monkeypatch: pytest.MonkeyPatch,
    variant: str = "distilled",
    *,
    serialise: bool = False,
    first_state: Callable[[GenerationRequest], DenoiseState] = DenoiseState.initial,
    guidance_batching: Any = "auto",
    **scheduler: Any,
) -> Latents:
    """Latents after every denoising step of ours; `serialise` sends the state through bytes between chunks."""
    steps: Latents = []
    monkeypatch.setattr(sampling, "make_solver", lambda *args: Recorder(make_solver(*args), steps))
    make = schedulers if variant == "distilled" else solvers
    config = make(**SCHEDULERS[variant] | scheduler)[1]
    model = transformers(shape)[1]
    denoiser = Denoiser(model, config, zero_star=variant == "mid", guidance_batching=guidance_batching)
    state = first_state(request)
    for _ in range(request.num_chunks):
        latents, state = denoiser.denoise_chunk(state, PROMPT, NEGATIVE)
        assert torch.equal(latents, steps[-1])
        state = DenoiseState.from_bytes(state.to_bytes()) if serialise else state
    return steps


def worst(ours: Latents, reference: Latents) -> float:
    """The largest relative error of all steps."""
    return max(relative_error(a, b) for a, b in zip(ours, reference, strict=True))
