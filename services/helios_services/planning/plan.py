"""The plan: what runs where on a machine. A pure function of the configuration, the model's sizes and the machine.

What is set in the configuration stays as it is; what is `auto` is filled in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from helios_engine.checkpoint import open_checkpoint
from helios_engine.errors import DoesNotFit
from helios_engine.options import Auto, DeviceType, VariantName
from helios_engine.planning.arrange import FULL_SIZE, Arrangement, Space, Wanted, arrange, held, holds
from helios_engine.planning.machine import GB, LEAST_CAPABILITY, Machine
from helios_engine.planning.needs import Needs
from helios_engine.tokens import PATCH
from helios_engine.vae.cudnn import FULL_CUDNN
from helios_services.config import ConfigError, DeploymentConfig, ServiceConfig
from helios_services.planning.layout import Layout, check_shares, layouts, shares

PARTS = {"text_encoder": "text", "denoiser": "denoiser", "decoder": "decoder"}
"""Sections of the configuration, and what the engine calls them."""
DEFAULT_SIZE = (384, 640)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """config: nothing in it is left to the machine. parts: bytes by purpose that a replica of each section takes on its
    device. waiting_bytes: weights of each denoiser in host memory besides. size: of the videos planned for. largest:
    whether there is room for videos of `model.max_pixels`."""

    config: ServiceConfig
    machine: Machine
    needs: Needs
    parts: Mapping[str, Mapping[str, int]]
    waiting_bytes: int
    size: tuple[int, int]
    largest: bool


def variant_of(config: ServiceConfig) -> VariantName:
    """What the checkpoint is. Raises CheckpointError."""
    return open_checkpoint(config.model.checkpoint).variant


def needs_of(config: ServiceConfig) -> Needs:
    """What the checkpoint needs for the largest of the sizes that replicas get ready for. Raises CheckpointError."""
    height, width = max(config.model.warm_ups, key=lambda size: size[0] * size[1], default=DEFAULT_SIZE)
    files = [Path(file) for file in config.model.loras.values()]
    adapters = sum(file.stat().st_size for file in files if file.is_file())
    return Needs.of(open_checkpoint(config.model.checkpoint), height=height, width=width, adapter_bytes=adapters)


def plan(config: ServiceConfig, needs: Needs, machine: Machine) -> Plan:
    """Raises ConfigError for what does not fit the machine, with what would."""
    gpus = 0 if any(gpu.capability < LEAST_CAPABILITY for gpu in machine.gpus) else len(machine.gpus)
    wanted, refused = _wanted(config), None
    for layout in layouts(config, gpus):
        try:
            space = _space(config, machine, gpus, layout)
            chosen = arrange(needs, wanted, space)
        except DoesNotFit as error:
            refused = refused or error
            continue
        filled = _filled(config, chosen, layout)
        check_shares(filled, gpus)
        taken = held(needs, wanted, chosen)
        return Plan(
            config=filled,
            machine=machine,
            needs=needs,
            parts={section: taken[part] for section, part in PARTS.items()},
            waiting_bytes=sum(taken["host"].values()),
            size=(needs.height, needs.width),
            largest=holds(needs.sized(PATCH, config.model.max_pixels // PATCH), wanted, space, chosen),
        )
    raise ConfigError(f"denoiser.device: {config.denoiser.device}: {refused} This machine: {machine}.")


def check_for_cluster(config: ServiceConfig, needs: Needs) -> None:
    """Raises ConfigError where a model of full size would run on the CPUs of a cluster by accident."""
    denoiser = config.denoiser
    if denoiser.device == denoiser.num_gpus == "auto" and needs.parameters >= FULL_SIZE:
        raise ConfigError(
            f"denoiser.device: auto is not allowed on a Ray cluster for a DiT of {needs.parameters / GB:.1f} billion "
            "parameters; allowed: cuda, with num_gpus, or cpu"
        )


def _space(config: ServiceConfig, machine: Machine, gpus: int, layout: Layout) -> Space:
    memory = min((gpu.memory_bytes for gpu in machine.gpus), default=0) if gpus else 0
    no_room = config.denoiser.num_gpus == 1 or config.denoiser.parallel.world_size > 1
    return Space(
        gpu_bytes=memory,
        beside_bytes=memory if layout.beside else 0 if no_room and gpus else None,
        host_bytes=machine.host_bytes,
        denoisers=layout.denoisers,
        half_vae=machine.cudnn >= FULL_CUDNN,
    )


def _wanted(config: ServiceConfig) -> Wanted:
    denoiser, decoder = config.denoiser, config.decoder
    ranks = denoiser.parallel.world_size
    return Wanted(
        text=_device(config.text_encoder),
        denoiser=_device(denoiser),
        decoder=_device(decoder),
        dtype=config.model.dtype,
        vae_dtype=decoder.vae_dtype,
        offload_budget_bytes=_bytes(denoiser.offload_budget_gb),
        activation_budget_bytes=_bytes(decoder.activation_budget_gb),
        prompts=denoiser.prompt_cache_entries,
        two_passes=denoiser.guidance_batching != "never",
        whole=denoiser.fp8 or denoiser.compile_mode != "off" or ranks > 1,
    )


def _device(section: DeploymentConfig) -> DeviceType | Auto:
    return "auto" if section.device == section.num_gpus == "auto" else section.runs_on


def _bytes(budget_gb: float | Auto | None) -> int | Auto | None:
    return int(budget_gb * GB) if isinstance(budget_gb, float) else budget_gb


def _filled(config: ServiceConfig, chosen: Arrangement, layout: Layout) -> ServiceConfig:
    """The configuration with every `auto` replaced. Raises ConfigError for what then does not go together."""
    on_gpu = [section for section, part in PARTS.items() if getattr(chosen, part) == "cuda"]
    parts_of_gpus = shares(config, on_gpu, layout)
    denoisers = layout.denoisers if config.denoiser.autoscaling.open else config.denoiser.autoscaling.most
    replicas = {
        "text_encoder": 1,
        "denoiser": layout.denoisers,
        "decoder": layout.decoders if chosen.decoder == "cuda" else 1,
        "dispatcher": -(-(denoisers + 1) // config.dispatcher.concurrent_jobs),
    }
    found: dict[str, dict[str, Any]] = {
        "model": {"dtype": chosen.dtype},
        "text_encoder": {"device": chosen.text},
        "denoiser": {
            "device": chosen.denoiser,
            "offload_budget_gb": _gb(chosen.offload_budget_bytes),
            "compile": config.denoiser.compile_mode,
        },
        "decoder": {
            "device": chosen.decoder,
            "activation_budget_gb": _gb(chosen.activation_budget_bytes),
            "vae_dtype": chosen.vae_dtype,
        },
        "dispatcher": {},
    }
    for section, number in replicas.items():
        scaling = getattr(config, section).autoscaling
        least, most = (number, number) if scaling.open else (scaling.least, scaling.most)
        found[section]["num_gpus"] = parts_of_gpus.get(section, 0.0)
        found[section]["autoscaling"] = {"min_replicas": least, "max_replicas": most}
    tree = config.model_dump(exclude_unset=True)
    _fill(config.model_dump(), found, tree)
    try:
        return ServiceConfig.model_validate(tree)
    except ValidationError as error:
        told = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"configuration: {'; '.join(told)}") from None


def _fill(given: Mapping[str, Any], found: Mapping[str, Any], tree: dict[str, Any]) -> None:
    """Puts into `tree` what is found for settings that are "auto" in `given`."""
    for name, value in found.items():
        if isinstance(value, dict):
            _fill(given[name], value, tree.setdefault(name, {}))
        elif given[name] == "auto":
            tree[name] = value


def _gb(size: int | None) -> float | None:
    return None if size is None else size / GB
