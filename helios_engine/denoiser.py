"""Makes latents, one chunk at a time: a function of an explicit state and the prompt's embedding.

Source: the chunk loop of `HeliosPyramidPipeline.__call__` (diffusers) for step-distilled checkpoints.
"""

import hashlib
from collections import OrderedDict
from os import PathLike

import torch

from helios_engine.block import TextKeysValues
from helios_engine.configs import PYRAMID_STAGES, SchedulerConfig
from helios_engine.errors import CheckpointError
from helios_engine.noise import block_noise, chunk_noise, upsample
from helios_engine.request import LATENT_FRAMES_PER_CHUNK
from helios_engine.scheduler import denoise_step, stage_schedule
from helios_engine.state import DenoiseState
from helios_engine.transformer import HeliosTransformer, History, parameter_dtype


class Denoiser:
    """The DiT with its sampler. Not safe for concurrent calls.

    prompt_cache_entries: prompts whose cross-attention keys and values are kept (420 MB each at full size).
    """

    def __init__(
        self, transformer: HeliosTransformer, scheduler: SchedulerConfig, *, prompt_cache_entries: int = 4
    ) -> None:
        self.transformer = transformer.eval().requires_grad_(False)
        self.scheduler = scheduler
        self._text: OrderedDict[bytes, list[TextKeysValues]] = OrderedDict()
        self._text_entries = prompt_cache_entries

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        prompt_cache_entries: int = 4,
    ) -> "Denoiser":
        """Loads `transformer/` and `scheduler/` of a published checkpoint folder. Raises CheckpointError."""
        from helios_engine.checkpoint import load_weights, open_checkpoint

        checkpoint = open_checkpoint(path)
        if checkpoint.scheduler is None:
            raise CheckpointError(
                f"{checkpoint.root / 'model_index.json'}: variant {checkpoint.variant!r} is not supported; "
                "allowed: 'distilled' (HeliosDMDScheduler)"
            )
        with torch.device("meta"):
            transformer = HeliosTransformer(checkpoint.transformer)
        expected = {name: parameter.shape for name, parameter in transformer.named_parameters()}
        weights = load_weights(
            checkpoint.root / "transformer",
            expected,
            device=device,
            dtype_of=lambda name: parameter_dtype(name, dtype),
        )
        transformer.load_state_dict(weights, assign=True)
        return cls(transformer, checkpoint.scheduler, prompt_cache_entries=prompt_cache_entries)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.transformer.proj_out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the matrix products run in."""
        return self.transformer.proj_out.weight.dtype

    @torch.inference_mode()
    def denoise_chunk(self, state: DenoiseState, prompt_embeds: torch.Tensor) -> tuple[torch.Tensor, DenoiseState]:
        """Makes chunk `state.chunk_index`.

        prompt_embeds: (1, 512, text_dim). Returns the chunk's normalised latents, (1, 16, 9, H/8, W/8) float32 on the
        CPU, and the state for the next chunk. The same arguments give the same bits on the same hardware and dtype.
        """
        generator = state.generator()
        text = self._encode_text(prompt_embeds)
        history = self.transformer.encode_history(
            *(part.to(self.device, self.dtype) for part in (state.history, state.anchor))
        )
        latents = self._sample(state, history, text, generator).cpu()
        return latents, state.advanced(latents, generator)

    def _sample(
        self, state: DenoiseState, history: History, text: list[TextKeysValues], generator: torch.Generator
    ) -> torch.Tensor:
        request = state.request
        shape = (1, state.history.shape[1], LATENT_FRAMES_PER_CHUNK, history.height, history.width)
        latents = chunk_noise(shape, PYRAMID_STAGES, generator).to(self.device)
        amplify = request.amplify_first_chunk and state.chunk_index == 0
        for stage, num_steps in enumerate(request.pyramid_steps):
            tokens = latents[0, 0].numel() // 4  # of the stage before, as the reference shifts by them
            schedule = stage_schedule(self.scheduler, stage, num_steps, tokens, amplify=amplify)
            if stage > 0:
                latents = upsample(latents)
                noise = block_noise(tuple(latents.shape), self.scheduler.gamma, generator).to(self.device)
                latents = schedule.alpha * latents + schedule.beta * noise
            start = latents
            for step in schedule.steps:
                velocity = self.transformer(latents.to(self.dtype), step.timestep, history, text)
                latents = denoise_step(latents, velocity, start, step)
        return latents

    def _encode_text(self, prompt_embeds: torch.Tensor) -> list[TextKeysValues]:
        on_cpu = prompt_embeds.detach().cpu().contiguous()
        key = hashlib.sha256(on_cpu.flatten().view(torch.uint8).numpy().data).digest()
        if key not in self._text:
            while len(self._text) >= self._text_entries:
                self._text.popitem(last=False)
            self._text[key] = self.transformer.encode_text(prompt_embeds.to(self.device, self.dtype))
        self._text.move_to_end(key)
        return self._text[key]
