"""The plan's sizes are those of the model, and shrink as GPUs are added."""

import pytest

from helios_engine.configs import TransformerConfig
from helios_engine.tokens import history_tokens, noisy_tokens
from helios_training.errors import TrainingError
from helios_training.plan import parameter_counts, plan

SIZE = {"height": 384, "width": 640}


def test_the_model_has_its_published_size() -> None:
    parameters, _ = parameter_counts(TransformerConfig(), 128)
    assert parameters == pytest.approx(14.31e9, rel=0.005)
    assert noisy_tokens(**SIZE) == 8640
    assert history_tokens(**SIZE) == 2400


def test_stage_three_holds_two_networks_and_an_average() -> None:
    base, distill = (plan("14b", stage, 1, **SIZE) for stage in ("base", "distill"))
    assert distill.weights == 2 * base.weights
    assert base.weights == pytest.approx(28.6e9, rel=0.005)
    assert base.average == 0
    assert distill.average == distill.trained > 0
    assert base.optimiser == 2 * base.trained == 2 * base.gradients


def test_adding_gpus_divides_all_but_activations() -> None:
    one, eight = (plan("14b", "mid", gpus, **SIZE) for gpus in (1, 8))
    assert eight.weights == -(-one.weights // 8)
    assert eight.activations == one.activations
    assert plan("14b", "distill", 8, **SIZE).total < 80e9


def test_the_small_model_is_trained_in_full() -> None:
    small = plan("small", "base", 1, height=64, width=128)
    assert small.weights == 0
    assert small.trained == pytest.approx(4 * 4.23e6, rel=0.01)


@pytest.mark.parametrize(("gpus", "height", "named"), [(0, 384, "gpus: 0"), (1, 100, "height: 100")])
def test_what_is_not_allowed_is_named(gpus: int, height: int, named: str) -> None:
    with pytest.raises(TrainingError, match=f"{named} is not allowed"):
        plan("14b", "base", gpus, height=height, width=640)
