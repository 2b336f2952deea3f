"""The objectives of Base, Mid and the ODE start: constants, signs and what gradients reach."""

import math

import pytest
import torch

from helios_engine.configs import SchedulerConfig, SolverConfig
from helios_engine.sampling.scheduler import stage_schedule
from helios_training.data.sections import SectionBatch
from helios_training.stages import ode, pyramid, recipes
from helios_training.stages.base import BaseObjective, Levels
from helios_training.stages.mid import FIRST_SHARES, LATER_SHARES, MidObjective
from helios_training.stages.ode import ODEObjective, PathBatch
from helios_training.velocity import Conditions, velocity
from training.small_models import CONFIG, Words, random_transformer


def batch(samples: int = 4, u: torch.Tensor | None = None) -> SectionBatch:
    generator = torch.Generator().manual_seed(2)

    def normal(frames: int) -> torch.Tensor:
        return torch.randn(samples, 16, frames, 8, 8, generator=generator)

    return SectionBatch(
        target=normal(9) * 0.5,
        history=normal(19),
        anchor=normal(1),
        captions=["a", "bb", "ccc", "dddd"][:samples],
        noise=normal(9),
        u=torch.rand(samples, 2, generator=generator) if u is None else u,
    )


def test_the_table_of_training_holds() -> None:
    assert (recipes.BASE_RATES, recipes.MID_RATES) == ((5e-5, 3e-5), (1e-4, 3e-5))
    for recipe in (recipes.BASE, recipes.MID, recipes.ODE):
        assert (recipe.weight_decay, recipe.clip_norm) == (1e-4, 1.0)
    assert recipes.BASE.ema_decay is None
    assert (recipes.ODE.lr, recipes.ODE.ema_decay) == (2e-6, 0.99)
    assert (recipes.STUDENT.lr, recipes.FAKE_SCORE.lr) == (2e-6, 4e-7)
    for recipe in (recipes.STUDENT, recipes.FAKE_SCORE):
        assert (recipe.betas, recipe.weight_decay, recipe.clip_norm) == ((0.0, 0.999), 1e-3, 10.0)
    assert (recipes.STUDENT.every, recipes.STUDENT.ema_decay, recipes.STUDENT.ema_from) == (5, 0.99, 750)
    assert recipes.LORA_RANKS == (128, 256)
    assert (FIRST_SHARES, LATER_SHARES) == ((0.25, 0.5, 0.25), (1 / 3, 1 / 3, 1 / 3))
    assert (ode.GUIDANCE_SCALE, ode.TEACHER_STEPS, ode.SECTIONS) == (5.0, (20, 20, 20), 5)


def test_the_stages_of_the_pyramid_have_their_levels() -> None:
    assert pytest.approx((1.0, 0.7998, 0.5004), abs=2e-4) == pyramid.STARTS
    assert pytest.approx((0.6663, 0.3337, 0.0), abs=2e-4) == pyramid.ENDS
    assert pyramid.jump(1) == pytest.approx((0.600, 0.693), abs=1e-3)
    assert pyramid.jump(2) == pytest.approx((0.750, 0.433), abs=1e-3)


def test_the_engine_samples_the_levels_that_are_trained() -> None:
    for stage in range(3):
        plan = stage_schedule(SchedulerConfig(), stage, 1000, 100)
        high, low = pyramid.TIMESTEPS[stage]
        assert plan.timesteps[0] == pytest.approx(high, abs=1.0)
        assert plan.timesteps[-1] == pytest.approx(low, abs=2.0)
        for sigma, moment in zip(plan.sigmas[::100], plan.timesteps[::100], strict=False):
            told = pyramid.timestep(stage, torch.tensor([sigma]))
            assert float(told) == pytest.approx(moment, abs=2.0)
        if stage:
            assert (plan.alpha, plan.beta) == pytest.approx(pyramid.jump(stage), abs=1e-3)


def test_pyramids_keep_the_mean_of_latents_and_the_variance_of_noise() -> None:
    x = torch.randn(2, 16, 9, 32, 32, generator=torch.Generator().manual_seed(0))
    assert [tuple(level.shape[-2:]) for level in pyramid.clean_pyramid(x)] == [(8, 8), (16, 16), (32, 32)]
    for level in pyramid.noise_pyramid(x):
        assert float(level.std()) == pytest.approx(1.0, abs=0.02)
    coarse = pyramid.clean_pyramid(x)[0]
    torch.testing.assert_close(coarse, x.unflatten(-1, (8, 4)).unflatten(-3, (8, 4)).mean(dim=(-1, -3)))


def test_a_stages_path_runs_from_its_start_to_its_end() -> None:
    x, n = torch.full((1, 1, 1, 4, 4), 3.0), torch.randn(1, 1, 1, 4, 4)
    clean, noise = pyramid.clean_pyramid(x), pyramid.noise_pyramid(n)
    start, end = pyramid.endpoints(clean, noise, 0)
    assert torch.equal(start, noise[0])
    torch.testing.assert_close(end, 0.6663 * noise[0] + 0.3337 * clean[0], atol=2e-3, rtol=0)
    start, end = pyramid.endpoints(clean, noise, 2)
    torch.testing.assert_close(start, 0.5004 * n + 0.4996 * 3.0, atol=2e-3, rtol=0)
    torch.testing.assert_close(end, x)


@pytest.mark.parametrize(("levels", "median"), [(Levels(), 0.5), (Levels(mean=1.1, deviation=1.4), 0.7503)])
def test_base_levels_are_logit_normal(levels: Levels, median: float) -> None:
    level = levels.at((torch.arange(100_000) + 0.5) / 100_000)
    logits = torch.log(level / (1 - level))
    assert float(logits.mean()) == pytest.approx(levels.mean, abs=1e-3)
    assert float(logits.std()) == pytest.approx(levels.deviation, rel=1e-2)
    assert float(level.median()) == pytest.approx(median, abs=1e-4)


@pytest.mark.parametrize("levels", [Levels(), Levels(mean=1.1, deviation=1.4)])
def test_base_regresses_noise_minus_clean_at_the_level_it_tells(levels: Levels) -> None:
    model, text, given = random_transformer(), Words(), batch()
    loss, _ = BaseObjective(model, text, levels=levels)(given)
    expected = []
    with torch.no_grad():
        for n in range(4):
            sigma = float(levels.at(given.u[n : n + 1, 0]))
            x, noise = given.target[n : n + 1], given.noise[n : n + 1]
            conditions = Conditions(given.history[n : n + 1], given.anchor[n : n + 1], text([given.captions[n]]))
            flow = velocity(model, (1 - sigma) * x + sigma * noise, torch.tensor([1000 * sigma]), conditions)
            expected.append(float((flow - (noise - x)).square().mean()))
    assert loss.item() == pytest.approx(sum(expected) / 4, rel=1e-5)
    loss.backward()
    assert text.table.weight.grad is not None
    assert text.table.weight.grad.any()


@pytest.mark.parametrize("stage", range(3))
def test_mid_regresses_start_minus_end_at_the_stages_timestep(stage: int) -> None:
    u = torch.tensor([[0.3, (stage + 0.5) / 3], [0.8, (stage + 0.5) / 3]])
    model, text, given = random_transformer(), Words(), batch(2, u)
    loss, metrics = MidObjective(model, text)(given)
    start, end = pyramid.endpoints(pyramid.clean_pyramid(given.target), pyramid.noise_pyramid(given.noise), stage)
    expected = []
    with torch.no_grad():
        for n, sigma in enumerate((0.3, 0.8)):
            high, low = pyramid.TIMESTEPS[stage]
            at = sigma * start[n : n + 1] + (1 - sigma) * end[n : n + 1]
            conditions = Conditions(given.history[n : n + 1], given.anchor[n : n + 1], text([given.captions[n]]))
            flow = velocity(model, at, torch.tensor([low + sigma * (high - low)]), conditions)
            expected.append(float((flow - (start[n : n + 1] - end[n : n + 1])).square().mean()))
    assert loss.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert float(metrics[f"stage_{stage}"]) == pytest.approx(loss.item())
    assert sum(float(part) for part in metrics.values()) == pytest.approx(loss.item())


def test_mid_draws_stages_by_their_shares_and_counts_samples_alike() -> None:
    model, text = random_transformer(), Words()
    u = torch.tensor([[0.5, 0.1], [0.5, 0.3], [0.5, 0.6], [0.5, 0.9]])
    _, later = MidObjective(model, text)(batch(4, u))
    _, first = MidObjective(model, text, shares=FIRST_SHARES)(batch(4, u))
    alone = [MidObjective(model, text)(_only(batch(4, u), n))[0].item() for n in range(4)]
    assert [float(later[f"stage_{n}"]) for n in range(3)] == pytest.approx(
        [(alone[0] + alone[1]) / 4, alone[2] / 4, alone[3] / 4], rel=1e-4
    )
    assert float(first["stage_0"]) == pytest.approx(alone[0] / 4, rel=1e-4)  # of the second's u, 0.3 is stage 1 there


def _only(given: SectionBatch, n: int) -> SectionBatch:
    from helios_training.trainer.batches import narrow

    return narrow(given, n, 1)


def paths() -> PathBatch:
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(2, 16, *shape, generator=generator)

    return PathBatch(
        states_0=normal(9, 2, 2),
        states_1=normal(9, 4, 4),
        states_2=normal(9, 8, 8),
        ends_0=normal(9, 2, 2),
        ends_1=normal(9, 4, 4),
        ends_2=normal(9, 8, 8),
        sigma=torch.tensor([[0.9, 0.5, 0.2], [1.0, 0.4, 0.7]]),
        history=normal(19, 8, 8),
        anchor=normal(1, 8, 8),
        embeds=torch.zeros(2, 512, CONFIG.text_dim),
    )


def test_the_ode_start_is_half_the_squared_distance_to_the_stages_ends() -> None:
    student, given = random_transformer(), paths()
    loss, metrics = ODEObjective(student)(given)
    expected = []
    with torch.no_grad():
        for stage in range(3):
            state, end = given.stage(stage)
            sigma = given.sigma[:, stage]
            flow = velocity(
                student, state, pyramid.timestep(stage, sigma), Conditions(given.history, given.anchor, given.embeds)
            )
            expected.append(0.5 * float((state - sigma.view(-1, 1, 1, 1, 1) * flow - end).square().mean()) / 3)
    assert [float(metrics[f"stage_{n}"]) for n in range(3)] == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(sum(expected), rel=1e-5)
    assert math.isfinite(loss.item())


def test_a_teachers_path_ends_where_its_next_stage_and_section_begin() -> None:
    from helios_training.stages.paths import teacher_paths

    teacher = random_transformer()
    scheduler = SolverConfig(scheduler_type="euler")
    embeds = torch.randn(1, 512, CONFIG.text_dim, generator=torch.Generator().manual_seed(0))
    made = list(
        teacher_paths(teacher, scheduler, embeds, torch.zeros_like(embeds), (8, 8), 0, sections=2, steps=(3, 3, 3))
    )
    first, second = made
    assert not first.history.any()
    assert torch.equal(second.history[:, -9:], first.stages[2].end)
    assert torch.equal(second.anchor[:, 0], first.stages[2].end[:, 0])
    for stage in first.stages:
        assert stage.sigmas[0] == pytest.approx(0.999, abs=1e-3)
    # of the straight line that Euler's last step takes, the state before it and the flow there give the end
    last = first.stages[2]
    both = Conditions(first.history[None], first.anchor[None], embeds)
    none = both._replace(embeds=torch.zeros_like(embeds))
    moment = torch.tensor([float(stage_schedule(scheduler, 2, 3, 36).timesteps[-1])])
    with torch.no_grad():
        told = velocity(teacher, last.states[-1:], moment, both)
        untold = velocity(teacher, last.states[-1:], moment, none)
    flow = untold + 5.0 * (told - untold)
    torch.testing.assert_close(last.states[-1] - last.sigmas[-1] * flow[0], last.end, atol=1e-4, rtol=1e-3)
