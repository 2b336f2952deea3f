"""Stage 3: what is compared, in which direction the student goes, which gradients stop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helios_engine.configs import SchedulerConfig
from helios_training.lora import Adapter
from helios_training.stages import gan, scores
from helios_training.stages.distilled import (
    STUDENT_EVERY,
    DistillBatch,
    FakeScoreObjective,
    StudentObjective,
    student_makes,
)
from helios_training.stages.gan import Critic, critic_loss, half_crop, head_blocks, kept_gradient, r1, student_loss
from helios_training.stages.scores import Scores, draw_levels, matching_direction, matching_loss, noised
from helios_training.stages.simulate import SimulationNoise, schedules, simulate
from helios_training.velocity import Conditions, velocity
from training.small_models import CONFIG, random_transformer

PLANS = schedules(SchedulerConfig(), (2, 2, 2), 9 * 16)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(*, adversarial: bool = False, exits: tuple[int, ...] = (1, 0, 1)) -> DistillBatch:
    embeds = normal(2, 512, CONFIG.text_dim, seed=9)
    embeds[:, 5:] = 0.0
    return DistillBatch(
        target=normal(2, 16, 9, 8, 8, seed=1),
        history=normal(2, 16, 19, 8, 8, seed=2),
        anchor=normal(2, 16, 1, 8, 8, seed=3),
        student_history=normal(2, 16, 19, 8, 8, seed=4),
        embeds=embeds,
        empty=torch.zeros_like(embeds),
        start=normal(2, 16, 9, 2, 2, seed=5),
        jump_1=normal(2, 16, 9, 4, 4, seed=6),
        jump_2=normal(2, 16, 9, 8, 8, seed=7),
        level=torch.tensor([0.4, 0.7]),
        noise=normal(2, 16, 9, 8, 8, seed=8),
        more_noise=normal(2, 16, 9, 8, 8, seed=10),
        crop=torch.tensor([[0.9, 0.1]] * 2),
        exits=exits,
        adversarial=adversarial,
    )


@pytest.fixture
def networks() -> tuple[nn.Module, Scores, Critic]:
    student, teacher = random_transformer(1), random_transformer(2)
    adapter = Adapter(teacher, rank=2)
    with torch.no_grad():
        for up in adapter.up.values():
            up.normal_(std=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = Critic(CONFIG)
    return student, Scores(teacher, adapter), critic


def test_the_constants_are_those_of_the_table() -> None:
    assert (scores.LOWEST, scores.HIGHEST, scores.BETA_START, scores.REAL_GUIDANCE) == (0.02, 0.98, (4.0, 1.5), 4.0)
    assert (gan.CRITIC_WEIGHT, gan.STUDENT_WEIGHT, gan.R1_WEIGHT, gan.R1_NOISE) == (0.01, 0.05, 100.0, 0.1)
    assert (gan.FIRST_STEP, gan.HEADS, STUDENT_EVERY) == (1000, 4, 5)


def test_levels_are_beta_distributed_first_and_uniform_at_last() -> None:
    rng = np.random.default_rng(0)
    first, last = (draw_levels(rng, 50_000, annealed=share) for share in (0.0, 1.0))
    assert float(first.mean()) == pytest.approx(4 / 5.5, abs=0.01)
    assert float(last.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(last.std()) == pytest.approx(12**-0.5, abs=0.01)
    assert float(first.min()) >= 0.02
    assert float(last.max()) == pytest.approx(0.98)
    shifted = draw_levels(np.random.default_rng(1), 50_000, annealed=1.0, shift=3.0)
    assert float(shifted.median()) == pytest.approx(0.75, abs=0.01)


def test_the_student_goes_from_the_fake_to_the_real() -> None:
    x0 = normal(2, 4, 1, 2, 2).requires_grad_()
    real, fake = x0.detach() + 0.5, x0.detach() - 1.0  # the teacher wants more, what students make has less
    direction = matching_direction(x0, real, fake)
    torch.testing.assert_close(direction, torch.full_like(direction, -1.5 / 0.5))
    loss = matching_loss(x0, direction)
    assert loss.item() == pytest.approx(0.5 * 9.0)
    loss.backward()
    assert x0.grad is not None
    torch.testing.assert_close(x0.grad, direction.detach() / x0.numel())
    assert (x0.grad < 0).all()  # a step against the gradient raises x0, towards the teacher's


def test_the_real_score_is_guided_and_the_fake_one_is_not(networks: tuple[nn.Module, Scores, Critic]) -> None:
    _, pair, _ = networks
    given = batch()
    x_s = normal(2, 16, 9, 8, 8, seed=11)
    level = given.level.view(-1, 1, 1, 1, 1)
    with torch.no_grad():
        plain = random_transformer(2)
        told = velocity(plain, x_s, 1000 * given.level, given.given)
        untold = velocity(plain, x_s, 1000 * given.level, given.given._replace(embeds=given.empty))
        adapted = velocity(pair.teacher, x_s, 1000 * given.level, given.given)
        torch.testing.assert_close(
            pair.real(x_s, given.level, given.given, given.empty),
            x_s - level * (untold + 4.0 * (told - untold)),
            atol=1e-4,
            rtol=1e-4,
        )
        torch.testing.assert_close(
            pair.fake(x_s, given.level, given.given), x_s - level * adapted, atol=1e-5, rtol=1e-4
        )
    assert not torch.allclose(told, adapted, atol=1e-3)


def test_simulating_to_the_last_steps_is_what_the_engine_samples() -> None:
    from helios_engine.sampling.solvers import DMDSolver

    student, given = random_transformer(), batch()
    conditions = Conditions(given.history, given.anchor, given.embeds)
    noise = SimulationNoise(start=given.start, jump_1=given.jump_1, jump_2=given.jump_2)
    with torch.no_grad():
        made = simulate(student, conditions, noise, PLANS, (1, 1, 1))
        x = given.start
        for stage, plan in enumerate(PLANS):
            if stage:
                doubled = x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
                x = plan.alpha * doubled + plan.beta * (given.jump_1 if stage == 1 else given.jump_2)
            solver = DMDSolver(plan, x)
            for moment in plan.timesteps:
                x = solver.step(x, velocity(student, x, torch.full((2,), float(moment)), conditions))
    torch.testing.assert_close(made, x, atol=1e-5, rtol=1e-4)


def test_only_the_exit_steps_have_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    from helios_training.stages import simulate as module

    student, given, seen = random_transformer(), batch(exits=(1, 0, 1)), []

    def watched(*arguments: object, **fields: object) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return velocity(*arguments, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "velocity", watched)
    made = student_makes(student, given, PLANS)
    assert seen == [False, True, True, False, True]
    made.square().mean().backward()
    assert student.proj_out.weight.grad is not None


def test_the_students_turn_trains_the_student_only(networks: tuple[nn.Module, Scores, Critic]) -> None:
    student, pair, critic = networks
    objective = StudentObjective(student, pair, critic, PLANS)  # type: ignore[arg-type]
    loss, metrics = objective(batch(adversarial=True))
    loss.backward()
    assert loss.item() == pytest.approx(float(metrics["matching"] + 0.05 * metrics["adversarial"]), rel=1e-5)
    assert all(value.grad is not None for name, value in student.named_parameters())
    for asked in (pair.teacher, pair.adapter, critic):
        assert all(value.grad is None for value in asked.parameters())
    assert set(objective.state_dict()) == {f"student.{name}" for name in student.state_dict()}


def test_the_fakes_turn_trains_adapter_and_critic_only(networks: tuple[nn.Module, Scores, Critic]) -> None:
    student, pair, critic = networks
    loss, metrics = FakeScoreObjective(student, pair, critic, PLANS)(batch(adversarial=True))  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == pytest.approx(float(metrics["flow"] + 0.01 * (metrics["critic"] + metrics["r1"])), rel=1e-5)
    assert all(value.grad is not None for module in (pair.adapter, critic) for value in module.parameters())
    for asked in (student, pair.teacher):
        assert all(value.grad is None for value in asked.parameters())


def test_the_fake_score_learns_the_flow_of_what_the_student_makes(networks: tuple[nn.Module, Scores, Critic]) -> None:
    student, pair, critic = networks
    given = batch()
    loss, metrics = FakeScoreObjective(student, pair, critic, PLANS)(given)  # type: ignore[arg-type]
    with torch.no_grad():
        made = student_makes(student, given, PLANS)  # type: ignore[arg-type]
        flow = velocity(pair.teacher, noised(made, given.noise, given.level), 1000 * given.level, given.given)
    assert loss.item() == pytest.approx(float((flow - (given.noise - made)).square().mean()), rel=1e-4)
    assert float(metrics["critic"]) == 0.0


def test_saturation_is_the_students_alone(networks: tuple[nn.Module, Scores, Critic]) -> None:
    student, _, _ = networks
    given = batch()
    other = replace(given, student_history=given.history)
    made, unshifted = (student_makes(student, each, PLANS) for each in (given, other))  # type: ignore[arg-type]
    assert not torch.allclose(made, unshifted, atol=1e-3)
    assert torch.equal(given.given.history, other.given.history)


def test_the_critic_pushes_real_up_and_made_down_and_the_student_pushes_made_up() -> None:
    real, made = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    critic_loss(real, made).backward()
    assert real.grad is not None
    assert made.grad is not None
    assert (real.grad < 0).all()
    assert (made.grad > 0).all()
    assert critic_loss(real, made).item() == pytest.approx(2 * np.log(2))
    (by_made,) = torch.autograd.grad(student_loss(made), made)
    assert (by_made < 0).all()


def test_r1_is_the_slope_of_the_critic() -> None:
    slope = torch.tensor(3.0)
    noise = torch.ones(4, 1)
    penalty = r1(lambda x: (slope * x).sum(dim=1), torch.zeros(4, 1), noise)
    assert penalty.item() == pytest.approx(100 * (3 * 0.1) ** 2)


def test_a_kept_gradient_is_the_gradient() -> None:
    x = normal(2, 3).requires_grad_()
    y = x * 2
    kept = kept_gradient(lambda made: made.pow(3).sum(), y)
    (kept_by_x,) = torch.autograd.grad(kept, x, retain_graph=True)
    (plain,) = torch.autograd.grad(y.pow(3).sum(), x)
    torch.testing.assert_close(kept_by_x, plain)
    assert kept.item() == pytest.approx(y.pow(3).sum().item(), rel=1e-5)


def test_crops_are_half_as_large_and_lie_on_the_patches() -> None:
    x = torch.arange(8 * 16.0).view(1, 1, 1, 8, 16)
    corners = {
        (float(part[0, 0, 0, 0, 0]), part.shape[-2:]) for part in (half_crop(x, a, b) for a in (0, 1) for b in (0, 1))
    }
    assert corners == {(0.0, (4, 8)), (8.0, (4, 8)), (64.0, (4, 8)), (72.0, (4, 8))}
    assert {int(half_crop(x, top, 0)[0, 0, 0, 0, 0]) // 16 % 2 for top in np.linspace(0, 1, 11)} == {0}


@pytest.mark.parametrize(("layers", "expected"), [(40, [9, 19, 29, 39]), (6, [0, 2, 3, 5]), (2, [0, 1])])
def test_four_blocks_are_judged_the_last_among_them(layers: int, expected: list[int]) -> None:
    assert head_blocks(layers) == expected


def test_an_adapter_switched_off_is_not_there_and_is_written_as_the_engine_reads_it(tmp_path: object) -> None:
    layer = nn.Sequential(nn.Linear(4, 3))
    before = layer(torch.ones(1, 4)).detach()
    adapter = Adapter(layer, rank=2, alpha=4.0)
    assert torch.equal(layer(torch.ones(1, 4)), before)  # B is zero at first
    with torch.no_grad():
        adapter.up["0"].fill_(0.5)
    on = layer(torch.ones(1, 4))
    assert not torch.allclose(on, before)
    with adapter.off():
        assert torch.equal(layer(torch.ones(1, 4)), before)
    published = adapter.published()
    down, up = published["transformer.0.lora_A.weight"], published["transformer.0.lora_B.weight"]
    torch.testing.assert_close(on, before + torch.ones(1, 4) @ down.T @ up.T)
