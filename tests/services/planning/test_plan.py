"""What is left to the machine is filled in by what it has; what is set stays; what cannot fit is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from helios_engine.loading.tiny import write_tiny
from helios_engine.planning.machine import GB, Gpu, Machine
from helios_engine.planning.needs import Needs
from helios_services.config import ConfigError, ServiceConfig, load_config
from helios_services.planning.plan import PARTS, Plan, needs_of, plan
from helios_services.planning.table import as_yaml, notes
from support.full_size import full_size_needs

CUDNN = 91500


@pytest.fixture(scope="module")
def full() -> Needs:
    """The published distilled model."""
    return full_size_needs()


def machine(gpus: int, memory_gb: float, host_gb: float, **details: Any) -> Machine:
    """GPUs as Hopper's, unless told otherwise."""
    one = Gpu(name="GPU", memory_bytes=int(memory_gb * GB), capability=details.pop("capability", (9, 0)))
    return Machine(gpus=(one,) * gpus, host_bytes=int(host_gb * GB), cores=16, **{"cudnn": CUDNN} | details)


def settings(text: str = "") -> ServiceConfig:
    """As a file would set them."""
    return ServiceConfig.model_validate(yaml.safe_load(text) or {})


def places(found: Plan) -> dict[str, tuple[str, float, int]]:
    """Device, share of a GPU and replicas of each part."""
    parts = {section: getattr(found.config, section) for section in PARTS}
    assert all(part.autoscaling.fixed for part in parts.values())
    return {name: (part.device, part.num_gpus, part.autoscaling.min_replicas) for name, part in parts.items()}


def test_eight_cards_make_six_denoisers_and_two_decoders(full: Needs) -> None:
    found = plan(settings(), full, machine(8, 80, 2000, nvlink=True))
    assert places(found) == {
        "text_encoder": ("cuda", 0.33, 1),
        "denoiser": ("cuda", 1.0, 6),
        "decoder": ("cuda", 0.66, 2),
    }
    config = found.config
    assert (config.model.dtype, config.decoder.vae_dtype, config.decoder.activation_budget_gb) == (
        "bfloat16",
        "float32",
        18.0,
    )
    assert config.denoiser.offload_budget_gb is None
    assert config.dispatcher.slots > 6, "the jobs in progress keep all denoisers busy"
    assert found.largest


def test_of_two_cards_one_decodes(full: Needs) -> None:
    found = plan(settings(), full, machine(2, 80, 200))
    assert places(found) == {
        "text_encoder": ("cuda", 0.33, 1),
        "denoiser": ("cuda", 1.0, 1),
        "decoder": ("cuda", 0.66, 1),
    }


def test_one_card_of_80_holds_everything(full: Needs) -> None:
    found = plan(settings(), full, machine(1, 80, 32))
    assert places(found) == {
        "text_encoder": ("cuda", 0.1, 1),
        "denoiser": ("cuda", 0.7, 1),
        "decoder": ("cuda", 0.2, 1),
    }
    assert found.config.denoiser.offload_budget_gb is None
    assert found.config.dispatcher.autoscaling.min_replicas == 1


def test_one_card_of_48_leaves_the_text_encoder_to_the_cpu(full: Needs) -> None:
    found = plan(settings(), full, machine(1, 48, 64))
    assert places(found)["text_encoder"] == ("cpu", 0.0, 1)
    assert places(found)["denoiser"][0] == places(found)["decoder"][0] == "cuda"
    assert found.config.denoiser.offload_budget_gb is None
    budget = found.config.decoder.activation_budget_gb
    assert isinstance(budget, float)
    assert full.vae_least("float32") <= budget * GB < full.vae_whole("float32")


def test_one_card_of_24_keeps_blocks_in_host_memory(full: Needs) -> None:
    found = plan(settings(), full, machine(1, 24, 64))
    assert places(found)["text_encoder"][0] == "cpu"
    assert places(found)["denoiser"][0] == places(found)["decoder"][0] == "cuda"
    assert found.config.decoder.vae_dtype == "float32"
    assert found.config.denoiser.offload_budget_gb == pytest.approx(10, abs=1)
    assert found.waiting_bytes == full.transformer_weights("bfloat16")


def test_one_card_of_8_has_room_for_two_blocks_only(full: Needs) -> None:
    found = plan(settings(), full, machine(1, 8, 64))
    assert {name: place[0] for name, place in places(found).items()} == {
        "text_encoder": "cpu",
        "denoiser": "cuda",
        "decoder": "cpu",
    }
    budget = found.config.denoiser.offload_budget_gb
    assert isinstance(budget, float)
    assert 2 <= budget * GB / full.block_bytes("bfloat16")[0] < 3


@pytest.mark.parametrize(("gpus", "memory", "host"), [(8, 80, 2000), (2, 24, 64), (1, 80, 32), (1, 24, 64), (1, 8, 64)])
def test_no_memory_is_promised_twice(full: Needs, gpus: int, memory: float, host: float) -> None:
    found = plan(settings(), full, machine(gpus, memory, host))
    taken = {name: sum(part.values()) for name, part in found.parts.items()}
    on_gpu = {name: size for name, size in taken.items() if places(found)[name][0] == "cuda"}
    beside = sum(size for name, size in on_gpu.items() if name != "denoiser")
    for held in [on_gpu["denoiser"], beside] if gpus > 1 else [on_gpu["denoiser"] + beside]:
        assert held <= 0.9 * memory * GB
    on_cpu = sum(size for name, size in taken.items() if name not in on_gpu)
    assert on_cpu + found.waiting_bytes * places(found)["denoiser"][2] <= 0.9 * host * GB


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (machine(1, 8, 32), ["does not fit", "7.5 GB of GPU memory and 50 of host memory", "1 x GPU, 8 GB; 32 GB"]),
        (machine(1, 4, 512), ["does not fit", "57.7 GB of GPU memory, or at the least 7.5"]),
        (
            machine(0, 0, 512),
            ["denoiser.device: auto", "14.3 billion", "57.7 GB of GPU", "cpu by name", "103 GB of host"],
        ),
        (machine(2, 80, 512, capability=(7, 5)), ["no GPU of compute capability 8.0"]),
    ],
)
def test_what_cannot_fit_is_refused_with_what_would(full: Needs, there: Machine, named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(settings(), full, there)
    for part in named:
        assert part in str(caught.value)


def test_what_the_message_names_would_do(full: Needs) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(settings(), full, machine(1, 4, 16))
    sizes = re.findall(r"([\d.]+) GB of GPU memory(?: and (\d+) of host memory)?", str(caught.value))
    assert len(sizes) == 2
    for gpu, host in sizes:
        found = plan(settings(), full, machine(1, float(gpu) + 0.2, float(host or 1) + 2))
        assert found.config.denoiser.device == "cuda"


def test_a_full_size_model_runs_on_a_cpu_that_is_asked_for(full: Needs) -> None:
    by_name = settings("denoiser: {device: cpu}")
    found = plan(by_name, full, machine(0, 0, 128))
    assert {place[0] for place in places(found).values()} == {"cpu"}
    assert found.config.model.dtype == "float32"
    assert plan(by_name, full, machine(0, 0, 72)).config.model.dtype == "bfloat16", "float32 does not fit"
    with pytest.raises(ConfigError, match="on the CPU it takes 103 GB of host memory"):
        plan(by_name, full, machine(0, 0, 16))


def test_a_small_model_on_a_cpu_runs_as_it_always_did(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    config = load_config(environ={"HELIOS_MODEL__CHECKPOINT": str(tmp_path)})
    found = plan(config, needs_of(config), machine(0, 0, 16)).config
    assert (found.dtype, found.decoder.vae_dtype, found.denoiser.compile) == ("float32", "float32", "off")
    assert found.denoiser.offload_budget_gb is None
    for section in (found.text_encoder, found.denoiser, found.decoder, found.dispatcher):
        assert (section.device, section.num_gpus) == ("cpu", 0)
        assert section.autoscaling.min_replicas == section.autoscaling.max_replicas == 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("text_encoder: {device: cpu}", {"text_encoder": ("cpu", 0.0, 1), "denoiser": ("cuda", 0.77, 1)}),
        ("decoder: {num_gpus: 0.5}", {"decoder": ("cuda", 0.5, 1), "denoiser": ("cuda", 0.43, 1)}),
        ("denoiser: {num_gpus: 1}", {"denoiser": ("cuda", 1.0, 1), "decoder": ("cpu", 0.0, 1)}),
    ],
)
def test_what_is_set_stays_and_the_rest_goes_round_it(full: Needs, text: str, kept: dict[str, object]) -> None:
    found = places(plan(settings(text), full, machine(1, 80, 200)))
    assert found | kept == found


def test_budgets_and_types_that_are_set_stay(full: Needs) -> None:
    text = "denoiser: {offload_budget_gb: 5}\ndecoder: {activation_budget_gb: null, vae_dtype: bfloat16}"
    config = plan(settings(text), full, machine(1, 80, 200)).config
    assert (config.denoiser.offload_budget_gb, config.decoder.activation_budget_gb) == (5.0, None)
    assert config.decoder.vae_dtype == "bfloat16"


def test_replicas_that_are_set_stay(full: Needs) -> None:
    text = "denoiser: {autoscaling: {min_replicas: 1, max_replicas: 4}}"
    scaling = plan(settings(text), full, machine(8, 80, 2000)).config.denoiser.autoscaling
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    two = plan(settings("denoiser: {autoscaling: {min_replicas: 2}}"), full, machine(8, 80, 2000)).config.denoiser
    assert (two.autoscaling.min_replicas, two.autoscaling.max_replicas) == (2, 2)
    three = settings("text_encoder: {device: cpu}\ndecoder: {device: cpu}\ndenoiser: {autoscaling: {min_replicas: 3}}")
    with pytest.raises(ConfigError, match=re.escape("num_gpus: 3 in all (denoiser 3 x 1)")):
        plan(three, full, machine(1, 80, 2000))


def test_a_group_of_ranks_takes_a_card_for_each(full: Needs) -> None:
    found = plan(settings("denoiser: {parallel: {ulysses_degree: 4}}"), full, machine(8, 80, 2000))
    assert places(found)["denoiser"] == ("cuda", 1.0, 1)
    assert places(found)["decoder"] == ("cuda", 0.66, 2)
    alone = plan(settings("denoiser: {parallel: {ulysses_degree: 2}}"), full, machine(2, 80, 2000))
    assert places(alone)["decoder"][0] == "cpu", "no card is left"
    with pytest.raises(ConfigError, match=re.escape("num_gpus: 4 in all (denoiser 4 x 1) is not allowed")):
        plan(settings("denoiser: {parallel: {ulysses_degree: 4}}"), full, machine(2, 80, 2000))


def test_offloading_denoisers_are_as_many_as_host_memory_allows(full: Needs) -> None:
    assert places(plan(settings(), full, machine(8, 24, 512)))["denoiser"][2] == 6
    assert places(plan(settings(), full, machine(8, 24, 80)))["denoiser"][2] == 2


def test_the_vae_is_in_16_bits_only_where_cudnn_has_kernels_for_it(full: Needs) -> None:
    tight = "text_encoder: {device: cpu}\ndenoiser: {offload_budget_gb: 5}\ndecoder: {device: cuda}"
    assert plan(settings(tight), full, machine(1, 18.5, 64)).config.decoder.vae_dtype == "float32"
    assert plan(settings(tight), full, machine(1, 17.5, 64)).config.decoder.vae_dtype == "float16"
    with pytest.raises(ConfigError, match="does not fit"):
        plan(settings(tight), full, machine(1, 17.5, 64, cudnn=CUDNN - 1))


def test_guidance_needs_room_for_two_passes() -> None:
    once, twice = full_size_needs(), full_size_needs(guided=True)
    more = sum(plan(settings(), twice, machine(1, 80, 200)).parts["denoiser"].values())
    assert more - sum(plan(settings(), once, machine(1, 80, 200)).parts["denoiser"].values()) == once.forward(
        "bfloat16", 1
    ) + once.prompts("bfloat16", 4)


@pytest.mark.parametrize("there", [machine(8, 80, 2000), machine(1, 24, 64), machine(1, 8, 64)])
def test_the_yaml_gives_the_same(full: Needs, there: Machine, tmp_path: Path) -> None:
    first = plan(settings("decoder: {crf: 20}\nmodel: {variant: distilled}"), full, there)
    file = tmp_path / "plan.yaml"
    file.write_text(as_yaml(first))
    again = load_config(file, {})
    assert again.model_copy(update={"state_dir": first.config.state_dir}) == first.config
    assert plan(again, full, there).config == again


def test_notes_say_what_the_table_cannot(full: Needs) -> None:
    small = "\n".join(notes(plan(settings(), full, machine(1, 24, 64))))
    assert "983,040 pixels (model.max_pixels), for which there may be no room" in small
    assert "28.7 GB of weights in host memory" in small
    mixed = Machine(gpus=(*machine(1, 80, 0).gpus, *machine(1, 48, 0).gpus), host_bytes=200 * GB, cores=16, cudnn=CUDNN)
    assert "memory of the smallest" in "\n".join(notes(plan(settings(), full, mixed)))
