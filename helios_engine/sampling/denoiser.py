"""Makes latents, one chunk at a time: a function of an explicit state and the prompts' embeddings.

Source: the chunk loops of `HeliosPipeline` and `HeliosPyramidPipeline.__call__` (diffusers).
"""

from dataclasses import dataclass, replace

import torch

from helios_engine.accelerate.compiling import compile_blocks
from helios_engine.accelerate.graphs import CudaRecorder, GraphedForward
from helios_engine.accelerate.memory import forward_fits
from helios_engine.configs import PYRAMID_STAGES, SchedulerConfig
from helios_engine.errors import InvalidField
from helios_engine.lora import AdapterSet
from helios_engine.model.attention import TextKeysValues
from helios_engine.model.transformer import HeliosTransformer, History, timestep_rows
from helios_engine.ops.attention_backends import attention_by
from helios_engine.ops.transfer import to_device, to_host
from helios_engine.options import AttentionKernel, CompileMode, GuidanceBatching
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.request import LATENT_FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.sampling.guidance import guide, guide_zero_star
from helios_engine.sampling.noise import NoiseAhead, block_noise
from helios_engine.sampling.prompt_cache import PromptCache
from helios_engine.sampling.scheduler import StageSchedule, single_schedule, stage_schedule
from helios_engine.sampling.solvers import make_solver
from helios_engine.sampling.state import DenoiseState
from helios_engine.text.embeds import MAX_PROMPT_TOKENS
from helios_kernels.upsample import upsample_renoise


@dataclass(frozen=True, kw_only=True)
class _Conditions:
    """What all steps of a chunk see. texts: one entry (with guidance: a batch of both), or the two in turn."""

    request: GenerationRequest
    history: History
    texts: list[list[TextKeysValues]]


class Denoiser:
    """The DiT with its sampler. Not safe for concurrent calls.

    zero_star: guidance is CFG-Zero* (Helios-Mid). prompt_cache_entries: prompts whose cross-attention keys and values
    are kept (420 MB each at full size). guidance_batching: run the conditional and unconditional pass as one batch
    always, never, or when the device's memory allows it; the result is the same within rounding. adapters: LoRA
    adapters that requests may name. compile: see `CompileMode`; graphs need a GPU, and neither goes with adapters or a
    transformer over several devices (ValueError). attention: the kernel, see `AttentionKernel` (ValueError for one that
    cannot be used here).
    """

    def __init__(
        self,
        transformer: HeliosTransformer | ParallelTransformer,
        scheduler: SchedulerConfig,
        *,
        zero_star: bool = False,
        prompt_cache_entries: int = 4,
        guidance_batching: GuidanceBatching = "auto",
        adapters: AdapterSet | None = None,
        compile: CompileMode = "off",
        attention: AttentionKernel = "auto",
    ) -> None:
        self.transformer = transformer.eval().requires_grad_(False)
        self._graphs: GraphedForward | None = None
        self._noise = NoiseAhead()
        self.scheduler, self.zero_star = scheduler, zero_star
        self.guidance_batching = guidance_batching
        self.adapters = adapters if adapters is not None else AdapterSet(transformer)
        self._text = PromptCache(prompt_cache_entries)
        config = transformer.config
        size = config.num_attention_heads, config.attention_head_dim
        transformer.use_attention(attention_by(attention, *size, self.dtype, self.device))
        if compile != "off":
            self._compile(compile)

    def _compile(self, mode: CompileMode) -> None:
        if not isinstance(self.transformer, HeliosTransformer) or self.adapters.names:
            raise ValueError(f"compile: {mode!r} is not allowed with adapters or over several devices; allowed: 'off'")
        if mode == "regional":
            compile_blocks(self.transformer)
        elif self.device.type == "cuda":
            self._graphs = GraphedForward(self.transformer, CudaRecorder(self.device))
        else:
            raise ValueError(f"compile: {mode!r} is not allowed on {self.device}; allowed: 'off' and 'regional'")

    def forget_prompts(self) -> None:
        """Drops the keys and values of all prompts."""
        self._text.clear()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.transformer.proj_out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the matrix products run in."""
        return self.transformer.proj_out.weight.dtype

    @torch.inference_mode()
    def denoise_chunk(
        self,
        state: DenoiseState,
        prompt_embeds: torch.Tensor,
        negative_prompt_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, DenoiseState]:
        """Makes chunk `state.chunk_index`.

        prompt_embeds, negative_prompt_embeds: (1, 512, text_dim); the latter is needed with guidance only. Returns
        the chunk's normalised latents, (1, 16, 9, H/8, W/8) float32 on the CPU, and the state for the next chunk. The
        same arguments give the same bits on the same type of device with the same build of torch, dtype and options; on
        a GPU also the same attention kernel, which has to be named for that. Raises InvalidField for an adapter that is
        not loaded.
        """
        with self.adapters.activate(self._scales(state.request)):
            return self._denoise_chunk(state, prompt_embeds, negative_prompt_embeds)

    def warm_up(self, request: GenerationRequest) -> None:
        """Makes a chunk of such a request and forgets it, so that what is compiled, recorded or timed once is done.

        request: with the variant's defaults filled in, of the size that most requests have. One step in each pyramid
        stage is enough.
        """
        embeds = torch.randn(2, MAX_PROMPT_TOKENS, self.transformer.config.text_dim).to(self.dtype)
        request = replace(request, zero_init=False) if request.zero_init else request  # every stage asks the model
        kept, self._text = self._text, PromptCache(2)
        try:
            self.denoise_chunk(DenoiseState.initial(request), embeds[:1], embeds[1:] if request.guided else None)
        finally:
            self._text = kept

    def _denoise_chunk(
        self, state: DenoiseState, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None
    ) -> tuple[torch.Tensor, DenoiseState]:
        generator = state.generator()
        on_device = self._latents(state, prompt_embeds, negative_prompt_embeds, generator)
        self._noise.draw(_chunk_shape(state), self.scheduler.stages, generator)  # a GPU is still at this chunk
        latents = to_host(on_device)
        return latents, state.advanced(latents, generator)

    def _latents(
        self,
        state: DenoiseState,
        prompt_embeds: torch.Tensor,
        negative_prompt_embeds: torch.Tensor | None,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """The chunk's latents on the device. The host does not wait for the device in here: it stays ahead of it."""
        history, anchor = (to_device(part, self.device).to(self.dtype) for part in (state.history, state.anchor))
        if state.anchor.shape[2] == 0 and state.request.keep_first_frame:
            anchor = torch.zeros_like(history[:, :, :1])
        conditions = _Conditions(
            request=state.request,
            history=self.transformer.encode_history(history, anchor if state.request.keep_first_frame else None),
            texts=self._texts(state, prompt_embeds, negative_prompt_embeds),
        )
        return self._sample(state, conditions, generator)

    def _scales(self, request: GenerationRequest) -> dict[str, float]:
        for number, lora in enumerate(request.loras):
            if lora.name not in self.adapters.names:
                allowed = f"an adapter of this model: {', '.join(self.adapters.names) or 'it has none'}"
                raise InvalidField(f"loras[{number}].name", lora.name, allowed)
        return {lora.name: lora.scale for lora in request.loras}

    def _sample(self, state: DenoiseState, conditions: _Conditions, generator: torch.Generator) -> torch.Tensor:
        request, stages = state.request, self.scheduler.stages
        latents = to_device(self._noise.take(_chunk_shape(state), stages, generator), self.device)
        amplify = bool(request.amplify_first_chunk) and state.chunk_index == 0
        for stage in range(stages):
            schedule = self._schedule(request, stage, latents, amplify=amplify)
            if stage > 0:
                shape = (*latents.shape[:-2], *(2 * size for size in latents.shape[-2:]))
                noise = to_device(block_noise(shape, self.scheduler.gamma, generator), self.device)
                latents = upsample_renoise(latents, noise, schedule.alpha, schedule.beta)
            solver = make_solver(self.scheduler, schedule, latents)
            for index, timestep in enumerate(timestep_rows(schedule.timesteps, self.device)):
                coarse_steps = index if stage == 0 else None
                latents = solver.step(latents, self._velocity(latents, timestep, conditions, coarse_steps))
        return latents

    def _schedule(
        self, request: GenerationRequest, stage: int, latents: torch.Tensor, *, amplify: bool
    ) -> StageSchedule:
        tokens = latents[0, 0].numel() // 4  # in a pyramid those of the stage before, as the reference shifts by them
        if self.scheduler.stages == PYRAMID_STAGES:
            assert request.pyramid_steps is not None
            steps = request.pyramid_steps[stage]
            return stage_schedule(self.scheduler, stage, steps, tokens, amplify=amplify, shift=request.shift)
        assert request.num_inference_steps is not None
        return single_schedule(self.scheduler, request.num_inference_steps, tokens, shift=request.shift)

    def _velocity(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditions: _Conditions, coarse_steps: int | None
    ) -> torch.Tensor:
        """The (guided) flow velocity.

        coarse_steps: steps taken before in the coarsest pyramid stage; None in later ones.
        """
        request, history = conditions.request, conditions.history
        model_input = latents.to(self.dtype)
        if not request.guided:
            return self.predict(model_input, timestep, history, conditions.texts[0])
        if self.zero_star and request.zero_init and coarse_steps is not None:
            assert request.zero_steps is not None
            if coarse_steps <= request.zero_steps:  # zero-init: no need to ask the model
                return torch.zeros_like(latents)
        if len(conditions.texts) == 1:
            both = self.predict(model_input.expand(2, -1, -1, -1, -1), timestep, history, conditions.texts[0])
            conditional, unconditional = both.chunk(2)
        else:
            conditional, unconditional = (
                self.predict(model_input, timestep, history, text) for text in conditions.texts
            )
        combine = guide_zero_star if self.zero_star else guide
        assert request.guidance_scale is not None
        return combine(conditional, unconditional, request.guidance_scale)

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, history: History, text: list[TextKeysValues]
    ) -> torch.Tensor:
        """One forward of the transformer, in the way that `compile` says. timestep: a row of `timestep_rows`."""
        forward = self.transformer if self._graphs is None else self._graphs
        velocity: torch.Tensor = forward(latents, timestep, history, text)
        return velocity

    def _texts(
        self, state: DenoiseState, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None
    ) -> list[list[TextKeysValues]]:
        if not state.request.guided:
            return [self._encode_text(prompt_embeds)]
        if negative_prompt_embeds is None:
            raise ValueError("negative_prompt_embeds: None is not allowed with guidance; allowed: (1, 512, text_dim)")
        both = (prompt_embeds, negative_prompt_embeds)
        if self._batches_guidance(state):
            return [self._encode_text(torch.cat(both))]
        return [self._encode_text(embeds) for embeds in both]

    def _batches_guidance(self, state: DenoiseState) -> bool:
        if self.guidance_batching == "auto":
            return forward_fits(self.transformer, state.request.height, state.request.width, batch=2)
        return self.guidance_batching == "always"

    def _encode_text(self, prompt_embeds: torch.Tensor) -> list[TextKeysValues]:
        def encode() -> list[TextKeysValues]:
            return self.transformer.encode_text(to_device(prompt_embeds, self.device).to(self.dtype))

        return self._text.get(prompt_embeds, self.adapters.active, encode)


def _chunk_shape(state: DenoiseState) -> tuple[int, ...]:
    return (1, *state.history.shape[1:2], LATENT_FRAMES_PER_CHUNK, *state.history.shape[-2:])
