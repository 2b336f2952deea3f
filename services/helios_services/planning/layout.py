"""How many replicas there are, and which of them share a GPU."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from helios_services.config import ConfigError, ServiceConfig

DENOISERS_TO_A_DECODER = 3
"""At the default steps the DiT takes three to four times as long for a chunk as the VAE does, by counted operations."""
WEIGHTS = {"denoiser": 0.7, "decoder": 0.2, "text_encoder": 0.1}
"""How a GPU is shared out. Shares only place replicas. Two decoders never land on one GPU beside the denoisers'."""
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Layout:
    """denoisers: replicas. beside: GPUs for text encoder and decoders only; 0: these share the denoisers'."""

    denoisers: int
    beside: int

    @property
    def decoders(self) -> int:
        """Replicas of the decoder."""
        return self.beside or -(-self.denoisers // DENOISERS_TO_A_DECODER)


def layouts(config: ServiceConfig, gpus: int) -> Iterator[Layout]:
    """What may be tried, the best first: fewer denoisers take less host memory where blocks wait there."""
    scaling, ranks = config.denoiser.autoscaling, config.denoiser.parallel.world_size
    if config.denoiser.runs_on == "cpu" and config.denoiser.device != "auto":
        gpus = 0
    most = (gpus - _beside(gpus)) // ranks if scaling.open else scaling.least
    for number in range(max(most, 1), 0 if scaling.open else most - 1, -1):
        yield Layout(denoisers=number, beside=max(0, min(_beside(gpus), gpus - number * ranks)))


def _beside(gpus: int) -> int:
    return -(-gpus // (DENOISERS_TO_A_DECODER + 1)) if gpus > 1 else 0


def shares(config: ServiceConfig, on_gpu: Iterable[str], layout: Layout) -> dict[str, float]:
    """`num_gpus` of the parts (sections) that are on a GPU: what is set stays, the others divide what is left."""
    parts = set(on_gpu)
    groups = [parts & {"denoiser"}, parts - {"denoiser"}] if layout.beside else [parts]
    found: dict[str, float] = {}
    for group in groups:
        given = {part: value for part in group if (value := getattr(config, part).num_gpus) != "auto"}
        weights = {part: WEIGHTS[part] for part in group if part not in given}
        left = 1.0 - sum(given.values())
        divided = {part: left * weight / sum(weights.values()) for part, weight in weights.items()}
        found |= given | {part: int(100 * share + ROUNDING) / 100 for part, share in divided.items()}
    return found


def fits(needed: Iterable[float], gpus: int) -> bool:
    """Whether each share finds room on one GPU: the largest first, each on the first GPU that has it."""
    free = [1.0] * gpus
    for share in sorted(filter(None, needed), reverse=True):
        room = next((index for index, left in enumerate(free) if left + ROUNDING >= share), None)
        if room is None:
            return False
        free[room] -= share
    return True


def check_shares(config: ServiceConfig, gpus: int) -> None:
    """Raises ConfigError if the least number of replicas asks for more than so many GPUs have room for."""
    counts = {
        "text_encoder": config.text_encoder.autoscaling.least,
        "denoiser": config.denoiser.autoscaling.least * config.denoiser.parallel.world_size,
        "decoder": config.decoder.autoscaling.least,
        "dispatcher": config.dispatcher.autoscaling.least,
    }
    share = {name: getattr(config, name).gpu_share for name in counts}
    each = [share[name] for name, count in counts.items() for _ in range(count)]
    if not fits(each, gpus):
        wanted = ", ".join(f"{name} {counts[name]} x {share[name]:g}" for name in counts if share[name])
        raise ConfigError(
            f"num_gpus: {sum(each):g} in all ({wanted}) is not allowed; allowed: what fits {gpus} GPUs, which is what "
            "there is on this machine (a share lies on one GPU; replicas share it by fractions: 0.1, 0.7 and 0.2)"
        )
