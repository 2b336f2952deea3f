"""What is compared: for each row, the same work as a call of ours and of diffusers'."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from benchmarks.peers import Peers
from benchmarks.sizes import Size
from helios_engine import HeliosPipeline
from helios_engine.model.transformer import timestep_rows
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.sampling.noise import block_covariance
from helios_engine.sampling.state import DenoiseState

PROMPT = "a slow camera over the lake at night with rain and a red city in the snow and a cat on the sun"
STAGES = (4, 2, 1)
"""How much smaller than the video the latents of each pyramid stage are."""
DIT = tuple(f"dit stage {stage}" for stage in range(len(STAGES)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """ours(), theirs(pipeline): the same work.

    costs: the parts of counts.py that it is made of, as often as they run; what diffusers compiles for it is of these
    as well. float32: it runs in that on every device (on a GPU with convolutions in TF32). frames: of video, where the
    row makes them. kept: what ours keeps in memory between calls for it.
    """

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[Any], Any]
    costs: tuple[str, ...]
    float32: bool = False
    frames: int = 0
    kept: tuple[torch.Tensor, ...] = ()


def rows(size: Size, peers: Peers) -> Iterator[Row]:
    """All rows of a size."""
    ours, device = peers.ours, torch.device(size.device)
    height, width = size.height // 8, size.width // 8
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    yield Row(
        name="text encode",
        ours=lambda: ours.text_encoder.encode([PROMPT]),
        theirs=_their_text,
        costs=("text encode",),
    )

    embeds = ours.text_encoder.encode([PROMPT])
    history, anchor = noise(1, 16, 19, height, width).to(size.dtype), noise(1, 16, 1, height, width).to(size.dtype)
    model = ours.denoiser.transformer
    with torch.inference_mode():
        encoded = model.encode_history(history, anchor)
        text = model.encode_text(embeds.to(device, size.dtype))
    kept = (encoded.tokens_BND, *(tensor for block in text for tensor in (block.k_BLHK, block.v_BLHK)))
    (timestep,) = timestep_rows([500.0], device)
    inputs = their_inputs(embeds.to(device, size.dtype), history, anchor)
    for stage, scale in enumerate(STAGES):
        latents = noise(1, 16, 9, height // scale, width // scale).to(size.dtype)
        yield Row(
            name=f"DiT step, stage {stage}",
            ours=lambda x=latents: ours.denoiser.predict(x, timestep, encoded, text),  # type: ignore[misc]
            theirs=lambda pipe, x=latents: pipe.transformer(hidden_states=x, **inputs)[0],  # type: ignore[misc]
            costs=(f"dit stage {stage}",),
            kept=kept,
        )
    for steps in (1, 2):
        request = request_for(size, steps)
        yield Row(
            name=f"DiT chunk [{steps},{steps},{steps}]",
            ours=lambda r=request: ours.denoiser.denoise_chunk(DenoiseState.initial(r), embeds)[0],  # type: ignore[misc]
            theirs=lambda pipe, r=request: _their_chunk(pipe, r, prompt_embeds=embeds),  # type: ignore[misc]
            costs=DIT * steps,
            kept=kept,
        )
    latents, pixels = noise(1, 16, 9, height, width), noise(1, 3, 33, size.height, size.width).clamp(-1, 1)
    mean, std = (torch.tensor(v, device=device).view(1, 16, 1, 1, 1) for v in _statistics(size))
    yield Row(
        name="VAE decode, a chunk",
        ours=lambda: ours.decoder.model(latents).clamp_(-1.0, 1.0),  # as the reference does
        theirs=lambda pipe: pipe.vae.decode(latents * std + mean, return_dict=False)[0],
        costs=("vae decode",),
        float32=True,
    )
    yield Row(
        name="VAE encode, a chunk",
        ours=lambda: ours.encoder.model(pixels)[0],
        theirs=lambda pipe: (pipe.vae.encode(pixels).latent_dist.mean - mean) / std,
        costs=("vae encode",),
        float32=True,
    )
    for steps in (1, 2):
        request = request_for(size, steps)
        yield Row(
            name=f"end to end, a chunk [{steps},{steps},{steps}]",
            ours=lambda r=request: torch.from_numpy(next(_without_cache(ours).generate(r)).frames),  # type: ignore[misc]
            theirs=lambda pipe, r=request: _their_frames(pipe, r),  # type: ignore[misc]
            costs=("text encode", *DIT * steps, "vae decode"),
            frames=FRAMES_PER_CHUNK,
        )


def request_for(size: Size, steps: int) -> GenerationRequest:
    """One chunk."""
    return GenerationRequest(
        prompt=PROMPT,
        num_frames=FRAMES_PER_CHUNK,
        height=size.height,
        width=size.width,
        seed=3,
        pyramid_steps=(steps,) * 3,
        amplify_first_chunk=False,
    )


def _without_cache(pipeline: HeliosPipeline) -> HeliosPipeline:
    """The same, but it has not seen the prompt before."""
    pipeline.denoiser.forget_prompts()
    return pipeline


def _statistics(size: Size) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return size.vae.latents_mean, size.vae.latents_std


def _their_text(pipe: Any) -> torch.Tensor:
    embeds: torch.Tensor = pipe.encode_prompt(PROMPT, do_classifier_free_guidance=False, max_sequence_length=512)[0]
    return embeds


def their_inputs(embeds: torch.Tensor, history: torch.Tensor, anchor: torch.Tensor) -> dict[str, Any]:
    """Arguments of diffusers' transformer beside the latents."""
    indices = torch.arange(29).split([1, 16, 2, 1, 9])
    long, mid, short = history.split([16, 2, 1], dim=2)
    return {
        "timestep": torch.tensor([500], device=embeds.device),
        "encoder_hidden_states": embeds,
        "indices_hidden_states": indices[4][None],
        "indices_latents_history_short": torch.cat([indices[0], indices[3]])[None],
        "indices_latents_history_mid": indices[2][None],
        "indices_latents_history_long": indices[1][None],
        "latents_history_short": torch.cat([anchor, short], dim=2),
        "latents_history_mid": mid,
        "latents_history_long": long,
        "return_dict": False,
    }


def _their_video(pipe: Any, request: GenerationRequest, **options: Any) -> Any:
    with working_cholesky():
        return pipe(
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            guidance_scale=1.0,
            pyramid_num_inference_steps_list=list(request.pyramid_steps or ()),
            is_amplify_first_chunk=False,
            generator=torch.Generator().manual_seed(request.seed),
            **options,
        ).frames


def _their_frames(pipe: Any, request: GenerationRequest) -> torch.Tensor:
    """In 8 bits and in host memory, as ours come; rounded on the device, which is the fastest way to have them there.

    Asked for numpy arrays the pipeline would hand over four times the bytes.
    """
    frames_TCHW: torch.Tensor = _their_video(pipe, request, prompt=request.prompt, output_type="pt")[0]
    return (frames_TCHW.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu()


def _their_chunk(pipe: Any, request: GenerationRequest, *, prompt_embeds: torch.Tensor) -> Any:
    """Without the decoding that the pipeline does even where latents are asked for."""
    embeds = prompt_embeds.to(pipe.transformer.device)
    undecoded = (torch.zeros(1, 3, 33, 8, 8, device=embeds.device),)
    with mock.patch.object(pipe.vae, "decode", return_value=undecoded):
        return _their_video(pipe, request, prompt_embeds=embeds, output_type="latent")


@contextmanager
def working_cholesky() -> Iterator[None]:
    """diffusers' block-noise covariance is singular, and its Cholesky fails on a CPU: this one is in float64."""
    cholesky = torch.linalg.cholesky

    def in_float64(matrix: torch.Tensor) -> torch.Tensor:
        factor: torch.Tensor = cholesky(block_covariance(1 / 3)).to(matrix)
        return factor

    with mock.patch.object(torch.linalg, "cholesky", in_float64):
        yield
