"""Where the text encoder, a denoiser and the VAE run, and what of each is given up to fit: a pure function of sizes.

What is given up, in this order, until it fits: the VAE takes fewer frames at a time (the same result, little time); the
text encoder goes to the CPU (seconds for each new prompt); blocks of the DiT wait in host memory (time for each step);
the VAE's decoder computes in 16 bits (precision); the VAE goes to the CPU (minutes for each chunk).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from helios_engine.accelerate.memory import RESERVE
from helios_engine.errors import DoesNotFit
from helios_engine.options import Auto, DeviceType, DtypeName, VAEDtypeName
from helios_engine.planning.machine import GB
from helios_engine.planning.needs import CONTEXT_BYTES, WORKSPACE_BYTES, Needs
from helios_engine.vae.slices import ACTIVATION_BUDGET_BYTES

T = TypeVar("T")

FULL_SIZE = 2_000_000_000
"""Parameters of a DiT that nobody runs on a CPU by accident: a chunk takes hours."""
SLOTS = 2
"""Blocks that the least budget for offloading holds: one computes while the next is copied."""
STEP_BYTES = GB // 10
"""Budgets are multiples of this."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for by name; the plan chooses what is "auto". prompts: entries of the prompt cache.

    two_passes: guidance may run both of its passes as one batch. whole: no blocks may wait in host memory, for what
    else is asked for does not go with that.
    """

    text: DeviceType | Auto = "auto"
    denoiser: DeviceType | Auto = "auto"
    decoder: DeviceType | Auto = "auto"
    dtype: DtypeName | Auto = "auto"
    vae_dtype: VAEDtypeName | Auto = "auto"
    offload_budget_bytes: int | Auto | None = "auto"
    activation_budget_bytes: int | Auto | None = "auto"
    prompts: int = 4
    two_passes: bool = True
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Space:
    """gpu_bytes: of the GPU that a denoiser runs on, 0 without one. beside_bytes: of another, for text encoder and VAE;
    None: they share the denoiser's. denoisers: how many share host_bytes. half_vae: whether cuDNN has 16-bit
    convolutions.
    """

    gpu_bytes: int
    beside_bytes: int | None = None
    host_bytes: int
    denoisers: int = 1
    half_vae: bool = True


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Devices, types and budgets. A budget of None: no bound, or nothing in host memory."""

    text: DeviceType
    denoiser: DeviceType
    decoder: DeviceType
    dtype: DtypeName
    vae_dtype: VAEDtypeName
    offload_budget_bytes: int | None
    activation_budget_bytes: int | None


def arrange(needs: Needs, wanted: Wanted, space: Space) -> Arrangement:
    """The first arrangement that fits, with budgets as large as there is room for. Raises DoesNotFit."""
    if not space.gpu_bytes:
        _check_cpu(needs, wanted, space)
    if "auto" not in vars(wanted).values():
        return next(_candidates(needs, wanted, space))  # all is given by name
    for each in _candidates(needs, wanted, space):
        if holds(needs, wanted, space, each):
            return _grown(needs, wanted, space, each)
    raise DoesNotFit(f"the model does not fit: {_what_would_do(needs, wanted, space)}")


def held(needs: Needs, wanted: Wanted, chosen: Arrangement) -> dict[str, Mapping[str, int]]:
    """Bytes by purpose that each part takes on its device ("text", "denoiser", "decoder"), and "host": of host memory
    for the weights of one denoiser that wait there."""
    whole = chosen.offload_budget_bytes is None
    weights = needs.transformer_weights(chosen.dtype)
    batch = 2 if needs.guided and whole and wanted.two_passes else 1
    decoding = needs.vae_whole(chosen.vae_dtype)
    if chosen.activation_budget_bytes is not None:
        decoding = min(decoding, max(chosen.activation_budget_bytes, needs.vae_least(chosen.vae_dtype)))
    parts: dict[str, dict[str, int]] = {
        "text": {"weights": needs.text_weights(chosen.dtype), "activations": needs.text_forward(chosen.dtype)},
        "denoiser": {
            "weights": weights if whole else needs.outside_blocks(chosen.dtype) + (chosen.offload_budget_bytes or 0),
            "activations": needs.forward(chosen.dtype, batch),
            "prompts": needs.prompts(chosen.dtype, wanted.prompts),
            "adapters": needs.adapter_bytes,
        },
        "decoder": {"weights": needs.vae_weights(chosen.vae_dtype), "activations": decoding},
    }
    for name, part in parts.items():
        if getattr(chosen, name) == "cuda":
            part["context"] = CONTEXT_BYTES
    if chosen.decoder == "cuda":
        parts["decoder"]["workspace"] = WORKSPACE_BYTES
    return {**parts, "host": {"weights": 0 if whole else weights}}


def holds(needs: Needs, wanted: Wanted, space: Space, chosen: Arrangement) -> bool:
    """Whether an arrangement has room for such videos."""
    return min(_free(needs, wanted, space, chosen)) >= 0


def usable(memory_bytes: int) -> int:
    """How many bytes of a GPU's or the host's memory are planned with."""
    return int(memory_bytes * (1.0 - RESERVE))


def _candidates(needs: Needs, wanted: Wanted, space: Space) -> Iterator[Arrangement]:
    """What may be chosen, the best first, each with the least budgets."""
    on_gpu = bool(space.gpu_bytes)
    best: DeviceType = "cuda" if on_gpu else "cpu"
    denoiser = _given(wanted.denoiser, best)
    elsewhere: tuple[DeviceType, ...] = ("cuda", "cpu") if on_gpu else ("cpu",)
    decoders = elsewhere if wanted.decoder == "auto" else (wanted.decoder,)
    texts = elsewhere if wanted.text == "auto" else (wanted.text,)
    types: tuple[DtypeName, ...] = ("float32", "bfloat16") if denoiser == "cpu" else ("bfloat16",)
    dtypes = types if wanted.dtype == "auto" else (wanted.dtype,)
    halves: tuple[VAEDtypeName, ...] = ("float32", "float16") if space.half_vae else ("float32",)
    for decoder, dtype in product(decoders, dtypes):
        known = halves if decoder == "cuda" else ("float32",)
        vae_dtypes = known if wanted.vae_dtype == "auto" else (wanted.vae_dtype,)
        for vae_dtype, offload, text in product(vae_dtypes, _offloads(needs, wanted, denoiser, dtype), texts):
            crowded = offload is not None and space.beside_bytes is None
            if crowded and text == "cuda" and wanted.text == "auto":
                continue  # its memory serves every step if blocks lie there
            yield Arrangement(
                text=text,
                denoiser=denoiser,
                decoder=decoder,
                dtype=dtype,
                vae_dtype=vae_dtype,
                offload_budget_bytes=offload,
                activation_budget_bytes=_given(wanted.activation_budget_bytes, _up(needs.vae_least(vae_dtype))),
            )


def _offloads(needs: Needs, wanted: Wanted, denoiser: DeviceType, dtype: DtypeName) -> tuple[int | None, ...]:
    if wanted.offload_budget_bytes != "auto":
        return (wanted.offload_budget_bytes,)
    if denoiser == "cpu" or wanted.whole:
        return (None,)
    return (None, _up(sum(sorted(needs.block_bytes(dtype))[-SLOTS:])))


def _free(needs: Needs, wanted: Wanted, space: Space, chosen: Arrangement) -> tuple[int, int, int]:
    """Bytes that are left (below 0: missing) of the denoiser's GPU, of the one beside it, and of host memory."""
    parts = held(needs, wanted, chosen)
    gpu, beside, host = usable(space.gpu_bytes), usable(space.beside_bytes or 0), usable(space.host_bytes)
    for name in ("text", "denoiser", "decoder"):
        taken = sum(parts[name].values())
        if getattr(chosen, name) == "cpu":
            host -= taken * (space.denoisers if name == "denoiser" else 1)
        elif name == "denoiser" or space.beside_bytes is None:
            gpu -= taken
        else:
            beside -= taken
    return gpu, beside, host - space.denoisers * sum(parts["host"].values())


def _grown(needs: Needs, wanted: Wanted, space: Space, chosen: Arrangement) -> Arrangement:
    """With larger budgets where there is room: blocks first, which every step needs, then frames."""
    gpu, _, _ = _free(needs, wanted, space, chosen)
    if wanted.offload_budget_bytes == "auto" and chosen.offload_budget_bytes is not None:
        more = min(chosen.offload_budget_bytes + gpu, _up(sum(needs.block_bytes(chosen.dtype))))
        chosen = replace(chosen, offload_budget_bytes=_down(more))
    if wanted.activation_budget_bytes == "auto":
        gpu, beside, host = _free(needs, wanted, space, chosen)
        room = host if chosen.decoder == "cpu" else gpu if space.beside_bytes is None else beside
        least = _up(needs.vae_least(chosen.vae_dtype))
        chosen = replace(chosen, activation_budget_bytes=max(_down(min(least + room, ACTIVATION_BUDGET_BYTES)), least))
    return chosen


def _check_cpu(needs: Needs, wanted: Wanted, space: Space) -> None:
    """Raises DoesNotFit where a GPU is asked for, or where a model of full size would be run without one."""
    asked = [name for name in ("text", "denoiser", "decoder") if getattr(wanted, name) == "cuda"]
    if asked:
        raise DoesNotFit(
            f"cuda is asked for, but there is no GPU of compute capability 8.0 or more: {', '.join(asked)}"
        )
    if wanted.denoiser == "auto" and needs.parameters >= FULL_SIZE:
        raise DoesNotFit(
            f"there is no GPU of compute capability 8.0 or more for a DiT of {needs.parameters / GB:.1f} billion "
            f"parameters: {_what_would_do(needs, wanted, space)} With the device cpu by name it runs all the same, "
            f"hours for each chunk, in {_cpu_bytes(needs, wanted, space) / GB:.0f} GB of host memory."
        )


def _cpu_bytes(needs: Needs, wanted: Wanted, space: Space) -> int:
    """Host memory that everything on the CPU needs."""
    here = replace(space, gpu_bytes=0, beside_bytes=None)
    chosen = next(_candidates(needs, wanted, here))
    return _memory(-_free(needs, wanted, replace(here, host_bytes=0), chosen)[2])


def _what_would_do(needs: Needs, wanted: Wanted, space: Space) -> str:
    """Sizes of GPU and host memory with which it would fit: the best arrangement, and the one that takes least."""
    if wanted.denoiser == "cpu":
        return f"on the CPU it takes {_cpu_bytes(needs, wanted, space) / GB:.0f} GB of host memory."
    nothing = replace(space, gpu_bytes=1, beside_bytes=None, host_bytes=0)
    needed = []
    for each in _candidates(needs, wanted, nothing):
        gpu, _, host = _free(needs, wanted, nothing, each)
        needed.append((_memory(-gpu), _memory(-host)))
    best, least = needed[0], min(needed)
    ways = [
        f"{gpu / GB:.1f} GB of GPU memory" + f" and {host / GB:.0f} of host memory" * (host > 0)
        for gpu, host in (best, least)
    ]
    return f"it takes {', or at the least '.join(dict.fromkeys(ways))}."


def _memory(taken: int) -> int:
    """How many bytes a device must have for so much to be planned on it."""
    return int(taken / (1.0 - RESERVE))


def _given(value: T | Auto, otherwise: T) -> T:
    return otherwise if value == "auto" else value


def _up(size: int) -> int:
    return -(-size // STEP_BYTES) * STEP_BYTES


def _down(size: int) -> int:
    return size // STEP_BYTES * STEP_BYTES
