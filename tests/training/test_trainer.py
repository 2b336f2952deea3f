"""The loop: what an optimiser's step is, that a run goes on exactly where it was killed, that nothing saved is lost."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helios_training.errors import TrainingError
from helios_training.snapshot import pack_snapshot, read_snapshot, write_snapshot
from helios_training.trainer import Part, Recipe, RunSettings, train
from training.toy_run import ToyTask, losses

SCRIPT = Path(__file__).parent / "toy_run.py"


def settings(folder: Path, steps: int, **fields: object) -> RunSettings:
    return RunSettings(folder=folder, steps=steps, report_every=1, quiet=True, **fields)  # type: ignore[arg-type]


def test_the_rate_warms_up_and_decays_to_its_share() -> None:
    recipe = Recipe(lr=2.0, warmup_steps=4, final_share=0.1)
    assert recipe.rate(0, 100) == pytest.approx(0.5, abs=0.001)
    assert recipe.rate(50, 100) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert recipe.rate(100, 100) == pytest.approx(0.2)
    assert Recipe(lr=2.0).rate(77, 100) == 2.0


def test_an_update_is_adamw_with_clipped_gradients() -> None:
    task = ToyTask(recipe=Recipe(lr=0.1, clip_norm=0.5, weight_decay=0.01))
    part = task.parts[0]
    ours = part.parameters["0.weight"]
    theirs = ours.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01)
    gradient = torch.full_like(ours, 2.0)
    ours.grad = gradient.clone()
    norm = part.update(0, 10)
    theirs.grad = gradient * (0.5 / (norm + 1e-6))
    optimizer.step()
    assert norm == pytest.approx(2.0 * math.sqrt(ours.numel()))
    torch.testing.assert_close(ours, theirs)


def test_the_average_follows_the_weights_from_its_step_on() -> None:
    task = ToyTask(recipe=Recipe(lr=0.1, ema_decay=0.9, ema_from=2))
    part, seen = task.parts[0], []
    for step in range(5):
        loss, _ = part.objective(task.batch("toy", step))
        loss.backward()
        part.update(step, 5)
        seen.append(part.parameters["0.weight"].detach().clone())
        assert bool(part.average) == (step >= 2)
    expected = seen[2]
    for weight in seen[2:]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(part.average["0.weight"], expected)


def test_accumulated_batches_train_as_whole_ones(tmp_path: Path) -> None:
    whole, parts = ToyTask(), ToyTask()
    train(whole, settings(tmp_path / "whole", 5))
    train(parts, settings(tmp_path / "parts", 5, micro_batches=4))
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)
    for name, weight in whole.parts[0].parameters.items():
        torch.testing.assert_close(parts.parts[0].parameters[name], weight, atol=1e-6, rtol=1e-5)


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="batch: 8 samples are not allowed; allowed: a multiple of 3"):
        train(ToyTask(), settings(tmp_path, 1, micro_batches=3))


def test_a_part_steps_in_its_turns_only(tmp_path: Path) -> None:
    task = ToyTask(recipe=Recipe(lr=0.1, every=5))
    train(task, settings(tmp_path, 11))
    assert task.parts[0].updates == 3


def wait_for(file: Path, process: subprocess.Popen[bytes], lines: int) -> None:
    for _ in range(6000):
        assert process.poll() is None, "ended early"
        if file.exists() and file.read_text().count("\n") >= lines:
            return
        time.sleep(0.01)
    raise AssertionError(f"{file}: not written")


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run that was killed in mid-step, some steps behind a snapshot."""
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path), "200", "0.02"], env=os.environ)
    try:
        wait_for(tmp_path / "train.log", process, 20)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return tmp_path


def test_a_killed_run_goes_on_with_the_same_losses(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, facts = read_snapshot(killed / "run.safetensors")
    assert 0 < facts["step"] < 200
    (killed / "train.log").unlink()
    task = ToyTask()
    train(task, settings(killed, facts["step"] + 10))
    undisturbed, folder = ToyTask(), tmp_path_factory.mktemp("undisturbed")
    train(undisturbed, settings(folder, facts["step"] + 10))
    assert losses(killed) == losses(folder)[-10:]
    for name, weight in undisturbed.parts[0].parameters.items():
        assert torch.equal(task.parts[0].parameters[name], weight)


def test_a_snapshot_of_another_run_is_refused(tmp_path: Path) -> None:
    train(ToyTask(), settings(tmp_path, 1))
    other = ToyTask()
    other.facts = {"stage": "base", "seed": 0}
    with pytest.raises(TrainingError, match=r"run.safetensors: stage: 'toy' is not allowed; allowed: 'base'"):
        train(other, settings(tmp_path, 2))


def test_a_damaged_snapshot_is_named_and_left(tmp_path: Path) -> None:
    train(ToyTask(), settings(tmp_path, 1))
    file = tmp_path / "run.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"run.safetensors: is no whole snapshot"):
        train(ToyTask(), settings(tmp_path, 2))
    assert file.stat().st_size == 200


def test_a_snapshot_without_a_weight_is_named(tmp_path: Path) -> None:
    part = ToyTask().parts[0]
    tensors = dict(part.tensors())
    tensors.pop("toy.weight.0.bias")
    with pytest.raises(TrainingError, match=r"toy.weight.0.bias: is missing; expected \[4\]"):
        part.restore(tensors, 1, 1)


def test_averages_from_before_the_recipe_keeps_any_are_not_taken(tmp_path: Path) -> None:
    train(ToyTask(), settings(tmp_path, 5))
    later = ToyTask(recipe=Recipe(lr=0.01, ema_decay=0.9, ema_from=6))
    train(later, settings(tmp_path, 6))
    assert not later.parts[0].average
    train(later, settings(tmp_path, 7))
    weight = later.parts[0].parameters["0.weight"].detach()
    torch.testing.assert_close(later.parts[0].average["0.weight"], weight)  # begins with the weights of its first step


def test_a_packed_snapshot_is_gone_on_from(tmp_path: Path) -> None:
    task = ToyTask()
    train(task, settings(tmp_path, 20))
    file = tmp_path / "run.safetensors"
    pack_snapshot(file, tmp_path / "packed.safetensors")
    (tmp_path / "packed.safetensors").replace(file)
    again = ToyTask()
    assert train(again, settings(tmp_path, 20)) == 20
    part, before = again.parts[0], task.parts[0]
    for name, weight in before.parameters.items():
        torch.testing.assert_close(part.parameters[name], weight, atol=1e-3, rtol=1e-3)
        second = part.optimizer.state[part.parameters[name]]["exp_avg_sq"]
        torch.testing.assert_close(second, before.optimizer.state[weight]["exp_avg_sq"], atol=0, rtol=1e-2)
    assert train(again, settings(tmp_path, 22)) == 22


def test_a_full_disk_loses_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.safetensors"
    write_snapshot(file, {"x": torch.ones(3)}, {"step": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helios_training.snapshot.save_file", full)
    with pytest.raises(TrainingError, match=r"run.safetensors: cannot be written .*No space left.*before it is whole"):
        write_snapshot(file, {"x": torch.zeros(3)}, {"step": 2})
    tensors, facts = read_snapshot(file)
    assert facts == {"step": 1}
    assert torch.equal(tensors["x"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_gradients_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    task = ToyTask()
    train(task, settings(tmp_path, 2))
    with torch.no_grad():
        task.parts[0].parameters["0.weight"].fill_(float("nan"))
    loss, _ = task.parts[0].objective(task.batch("toy", 2))
    loss.backward()
    with pytest.raises(TrainingError, match="toy: gradients of step 2 are not finite"):
        task.parts[0].update(2, 3)


def test_a_part_without_gradients_is_refused() -> None:
    layer = torch.nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(TrainingError, match="frozen: has no parameter that requires gradients"):
        Part("frozen", layer, layer, Recipe(lr=1.0))


def test_metrics_go_to_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(ToyTask(), settings(tmp_path, 4))
    events = EventAccumulator(str(tmp_path / "metrics"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert events.Scalars("samples_per_second")[0].value > 0


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    train(ToyTask(), settings(tmp_path / "one", 6))
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    processes = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path / "two"), "6", "0", rendezvous, str(rank)])
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    tensors, facts = read_snapshot(tmp_path / "two" / "run.safetensors")
    alone, _ = read_snapshot(tmp_path / "one" / "run.safetensors")
    assert facts["step"] == 6
    for name, tensor in alone.items():
        torch.testing.assert_close(tensors[name], tensor, atol=1e-6, rtol=1e-4)
