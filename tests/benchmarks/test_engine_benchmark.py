"""The engine benchmark's own code, on tiny models: that it compares the same work. Nothing is timed here."""

import gc
import json
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from benchmarks import ablation, bf16, ceilings, engine, engine_row, engine_ways, fp8, vae_precision
from benchmarks.ablation import ablations
from benchmarks.ablation_case import COMMON_ROWS, GPU_ROWS, Ablation
from benchmarks.ablation_gpu import gpu_ablations
from benchmarks.engine_row import COMPILED, EAGER, OURS, CompileBudget, measure_row
from benchmarks.peers import Peers, build, compiled, join_projections, use_joined, weight_bytes
from benchmarks.records import NOT_MEASURED
from benchmarks.rows import Row, rows
from benchmarks.sizes import SIZES
from helios_engine.model.transformer import HeliosTransformer
from parity.reference import TOLERANCE, relative_error


@pytest.fixture(scope="module")
def peers() -> Peers:
    return build(SIZES["tiny"])


def test_rows_compare_the_same_work(peers: Peers) -> None:
    names = []
    for row in rows(SIZES["tiny"], peers):
        with torch.inference_mode():
            ours, theirs = row.ours(), row.theirs(peers.diffusers)
        names.append(row.name)
        if row.frames:  # the same frames, rounded to 8 bits
            assert ours.dtype == theirs.dtype == torch.uint8
            assert (ours.int() - theirs.int()).abs().max() <= 1
        else:
            assert relative_error(ours, theirs.view(ours.shape)) < TOLERANCE, row.name
    assert tuple(names) == engine.ROW_NAMES


def test_ablations_do_not_change_results(peers: Peers) -> None:
    compared = [one for one in ablations(SIZES["tiny"], peers.ours) if one.taken]
    assert len(compared) >= 10
    for one in compared:
        assert relative_error(*results(one)) < TOLERANCE, one.name


def results(one: Ablation) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        with_it, without = one.with_it(), one.without()
    assert isinstance(with_it, torch.Tensor)
    assert isinstance(without, torch.Tensor)
    return with_it, without


def test_the_rows_for_gpus_do_not_change_results(peers: Peers) -> None:
    size, model = SIZES["tiny"], peers.ours.denoiser.transformer
    assert isinstance(model, HeliosTransformer)
    past, anchor, embeds = torch.zeros(1, 16, 19, 8, 8), torch.zeros(1, 16, 1, 8, 8), torch.ones(1, 512, 32)
    history, text = model.encode_history(past, anchor), model.encode_text(embeds)
    cases = {one.name: one for one in gpu_ablations(size, peers.ours, model, history, text, torch.randn)}
    assert {name: one.of for name, one in cases.items()} == GPU_ROWS
    weight = model.blocks[0].attn1.to_q.weight  # type: ignore[union-attr]
    for name in set(cases) - {"CUDA graphs", "compiled blocks in place of the fused kernels"}:  # no GPU; slow
        assert relative_error(*results(cases[name])) < (TOLERANCE if cases[name].exact else 0.1), name
    assert model.blocks[0].attn1.to_q.weight is weight  # type: ignore[union-attr]


def test_ablations_for_gpus_give_their_memory_back_and_decode_first(peers: Peers) -> None:
    size, model = SIZES["tiny"], peers.ours.denoiser.transformer
    assert isinstance(model, HeliosTransformer)
    past, anchor, embeds = torch.zeros(1, 16, 19, 8, 8), torch.zeros(1, 16, 1, 8, 8), torch.ones(1, 512, 32)
    history, text = model.encode_history(past, anchor), model.encode_text(embeds)
    names, quantised = [], []
    gc.collect()
    kept = {id(one) for one in gc.get_objects() if type(one) is HeliosTransformer}
    for one in gpu_ablations(size, peers.ours, model, history, text, torch.randn):
        names.append(one.name)
        if one.name == "8-bit linear layers":
            one.with_it()
            made = [o for o in gc.get_objects() if type(o) is HeliosTransformer and id(o) not in kept]
            quantised = [weakref.ref(made.pop())]
    gc.collect()
    assert [ref() for ref in quantised] == [None]
    assert names.index("8-bit linear layers") > max(n for n, name in enumerate(names) if GPU_ROWS[name] == "VAE decode")


def test_ablations_are_written_one_by_one_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, threads = tmp_path / "result.json", torch.get_num_threads()
    first, second, *_ = COMMON_ROWS
    times = {"median": 1.0, "min": 1.0, "max": 1.0}
    known = {"name": first, "part": "p", "worth": 2.0, "taken": True, "with": times, "without": times}

    def two(*_: object) -> Any:
        yield Ablation(name=first, of="p", with_it=raises, without=raises)
        yield Ablation(name=second, of="p", with_it=lambda: 0, without=lambda: 0)
        assert json.loads(file.read_text())["results"][1]["worth"] > 0  # before the next one is begun
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "ablations", two)
    monkeypatch.setattr("sys.argv", ["ablation", "--size", "tiny", "--output", str(file)])
    file.write_text(json.dumps({"results": [known]}))
    try:
        with pytest.raises(KeyboardInterrupt):
            ablation.main()
    finally:
        torch.set_num_threads(threads)
    kept, made = json.loads(file.read_text())["results"]
    assert kept == known
    assert made["name"] == second


@pytest.mark.parametrize("regional", [False, True])
def test_compiled_peers_share_weights_and_leave_the_eager_ones_alone(peers: Peers, regional: bool) -> None:
    made = compiled(peers.diffusers, regional=regional)
    theirs = peers.diffusers
    pairs = [(made.transformer.blocks[0], theirs.transformer.blocks[0])] if regional else []
    pairs += [] if regional else [(made.transformer, theirs.transformer)]
    pairs += [(made.text_encoder, theirs.text_encoder), (made.vae.encoder, theirs.vae.encoder)]
    for ours, eager in [*pairs, (made.vae.decoder, theirs.vae.decoder)]:
        assert ours._compiled_call_impl is not None
        assert eager._compiled_call_impl is None
        assert all(a is b for a, b in zip(ours.parameters(), eager.parameters(), strict=True))


def test_the_fastest_mode_that_works_is_taken(peers: Peers) -> None:
    size = SIZES["tiny"]
    facts = engine_ways.with_fastest_mode(peers, size, ["graphs", "off"], engine.MODES)
    assert facts["taken"] == "off"
    assert "compile: 'graphs' is not allowed on cpu" in facts["chunk [1,1,1], s"]["graphs"]
    assert facts["chunk [1,1,1], s"]["off"] > 0


def test_a_run_goes_on_when_no_mode_works(peers: Peers) -> None:
    before = peers.ours.denoiser
    facts = engine_ways.with_fastest_mode(peers, SIZES["tiny"], ["graphs"], engine.MODES)
    assert facts["taken"] == "off"
    assert peers.ours.denoiser is before


@pytest.fixture(scope="module")
def half() -> Peers:
    """In bfloat16, with the published size's switches."""
    return build(half_size())


def half_size() -> Any:
    tiny = SIZES["tiny"]
    amplify = SIZES["gpu-full"].transformer.is_amplify_history
    return replace(tiny, dtype=torch.bfloat16, transformer=replace(tiny.transformer, is_amplify_history=amplify))


def test_the_peers_agree_in_bfloat16_as_the_gpu_size_runs_them(half: Peers) -> None:
    for row in rows(half_size(), half):
        record = engine_row._compared(row, half, half_size())
        assert EAGER not in record, record
        assert "differs" not in record, (row.name, record)
        assert record["relative_error"] < 0.02
        # both have the same text encoder, which on some processors gives a prompt the same bits at any padding
        assert record["relative_error"] > 0 or row.name == "text encode"


def test_joined_projections_share_all_weights_and_change_nothing() -> None:
    pair = build(half_size())
    ours, theirs = pair.ours.denoiser.transformer, pair.diffusers.transformer
    assert isinstance(ours, HeliosTransformer)
    (step,) = (row for row in rows(half_size(), pair) if row.name == engine.FINEST)
    with torch.inference_mode():
        expected, before, held = step.theirs(pair.diffusers), step.ours(), weight_bytes(ours, theirs)
        join_projections(ours, theirs)
        assert weight_bytes(ours, theirs) == weight_bytes(ours) == weight_bytes(theirs) == held
        for joined in (True, False):
            use_joined(theirs, joined=joined)
            assert theirs.blocks[0].attn1.fused_projections is joined
            assert relative_error(step.theirs(pair.diffusers), expected) < 0.01
        use_joined(theirs, joined=True)
        theirs.blocks[0].attn2.to_kv.weight.data += 1.0  # one memory: ours and the separate layers see it
        assert relative_error(step.theirs(pair.diffusers), expected) > 0.01
        own: Any = ours.blocks[0]
        assert torch.equal(own.attn2.to_k.weight, theirs.blocks[0].attn2.to_kv.weight.chunk(2)[0])
        assert relative_error(step.ours(), before) < 0.01  # its keys and values were made before


def test_bfloat16_costs_ours_no_more_than_diffusers() -> None:
    for stage, errors in bf16.compare(SIZES["tiny"], layers=2):
        assert 1e-3 < errors["diffusers"] < 0.02, stage
        assert errors["ours"] < 1.2 * errors["diffusers"], stage


def row_of(ours: Any, theirs: Any, **facts: Any) -> Row:
    return Row(name="r", ours=ours, theirs=theirs, costs=("dit stage 0",), **facts)


ONES, CPU = torch.ones(8), SIZES["tiny"]


def raises(*_: object) -> NoReturn:
    raise RuntimeError("no\nmemory")


def test_what_diffusers_cannot_run_is_recorded_and_ours_is_measured(peers: Peers) -> None:
    record = measure_row(row_of(lambda: ONES, raises), peers, None, CPU, 2, None)
    assert record[EAGER] == "failed: RuntimeError: no memory"
    assert record[OURS]["runs"] == 2
    assert record["ratio"] == {}


def test_a_row_whose_results_differ_says_so(peers: Peers) -> None:
    wrong = ONES * 1.01
    assert measure_row(row_of(lambda: ONES, lambda _: wrong), peers, None, CPU, 1, None)["differs"] is True
    nan = ONES * float("nan")
    assert measure_row(row_of(lambda: nan, lambda _: ONES), peers, None, CPU, 1, None)["differs"] is True
    assert "differs" not in measure_row(row_of(lambda: ONES, lambda _: ONES), peers, None, CPU, 1, None)


def test_nothing_is_compiled_after_the_budget_but_what_is_compiled_is_measured(peers: Peers) -> None:
    budget = CompileBudget(until=time.monotonic() - 1)
    calls: list[Any] = []

    def theirs(pipe: Any) -> torch.Tensor:
        calls.append(pipe)
        return ONES

    row = row_of(lambda: ONES, theirs)
    assert measure_row(row, peers, "compiled", CPU, 1, budget)[COMPILED] == NOT_MEASURED
    assert "compiled" not in calls
    budget.compiled.add("dit stage 0")
    record = measure_row(row, peers, "compiled", CPU, 1, budget)
    assert record[COMPILED]["runs"] == 1
    assert set(record["ratio"]) == {EAGER, COMPILED}
    budget = CompileBudget(until=time.monotonic() + 60)
    bad = row_of(lambda: ONES, lambda pipe: raises() if pipe == "compiled" else ONES)
    assert measure_row(bad, peers, "compiled", CPU, 1, budget)[COMPILED].startswith("failed: RuntimeError")
    calls.clear()
    assert measure_row(row, peers, "compiled", CPU, 1, budget)[COMPILED].startswith("failed: a part")  # not again
    assert "compiled" not in calls


def test_a_run_keeps_what_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, threads = tmp_path / "result.json", torch.get_num_threads()
    with_compiled = {OURS: {"median": 1.0, "min": 1.0, "max": 1.0}, "ratio": {}, COMPILED: {"median": 1.0}}
    without = with_compiled | {COMPILED: NOT_MEASURED}
    kept = dict.fromkeys(engine.ROW_NAMES, without) | {engine.FINEST: with_compiled, "text encode": NOT_MEASURED}
    seen = []

    def fails(*_: Any, wanted: list[str], **__: Any) -> Any:
        for name in wanted:
            seen.append(name)
            yield {"peak": 1}, {name: "failed: x" if name != "text encode" else without}

    def run(*arguments: str) -> dict[str, Any]:
        seen.clear()
        monkeypatch.setattr("sys.argv", ["engine", "--size", "tiny", "--output", str(file), *arguments])
        engine.main()
        report: dict[str, Any] = json.loads(file.read_text())
        return report

    monkeypatch.setattr(engine, "run", fails)
    monkeypatch.setattr(engine, "show", lambda _: None)
    try:
        file.write_text(json.dumps({"rows": kept, "older fact": 2}))
        report = run("--missing", "--no-compile")
        assert seen == ["text encode"]
        assert report["older fact"] == 2
        assert report["rows"]["text encode"]["command"].startswith("python -m benchmarks.engine")
        assert report["rows"][engine.FINEST] == with_compiled
        run("--missing")
        assert engine.FINEST not in seen
        assert len(seen) == len(engine.ROW_NAMES) - 1  # the compiled column is missing
        assert run()["rows"][engine.FINEST] == with_compiled
        assert len(seen) == len(engine.ROW_NAMES)
        assert run("--fresh")["rows"][engine.FINEST] == "failed: x"
    finally:
        torch.set_num_threads(threads)


def test_shares_of_chunks_are_sums_of_their_parts_at_their_own_rates() -> None:
    size = SIZES["gpu-full"]
    slow = ceilings.Ceilings(matmul_flops_per_s=1e12, float32_matmul_flops_per_s=5e11, copy_bytes_per_s=None)
    parts = ("text encode", "dit stage 0", "dit stage 1", "dit stage 2", "vae decode")
    alone = {part: ceilings.least_s(size, [part], slow, 512) for part in parts}
    assert alone["dit stage 2"] == pytest.approx(356, rel=0.01)  # TFLOP at 1 TFLOP/s
    assert alone["vae decode"] == pytest.approx(2 * 69.3, rel=0.01)
    assert ceilings.least_s(size, parts, slow, 512) == pytest.approx(sum(alone.values()))
    wide = replace(slow, copy_bytes_per_s=1e9)
    assert ceilings.least_s(size, ["text encode"], wide, 20) > 9  # GB of its weights at 1 GB/s


def test_decoding_in_bfloat16_is_close_and_not_equal() -> None:
    *_, results = vae_precision.compare(SIZES["tiny"], runs=0)
    compared = results["precision"]["bfloat16"]
    assert 35 < compared["psnr_db"] < 70
    assert 0 < compared["largest_difference_levels"] < 20
    assert compared["psnr_db"] < results["precision"]["float16"]["psnr_db"]  # three bits more
    one = torch.zeros(10, dtype=torch.uint8)
    assert vae_precision.psnr(one, one + 255) == 0.0
    assert vae_precision.psnr(one, one + 1) == pytest.approx(48.13, abs=0.01)


def test_8_bit_layers_change_latents_a_little_and_no_speed_is_claimed() -> None:
    (compared,) = fp8.compare(SIZES["tiny"], chunks=2, steps=1, runs=1)
    assert all(1e-4 < error < 0.1 for error in compared["latent_error_by_chunk"])
    assert set(compared["seconds"].values()) == {NOT_MEASURED}


def test_a_size_without_its_device_is_recorded_as_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "result.json"
    monkeypatch.setattr("sys.argv", ["engine", "--size", "gpu-full", "--output", str(file)])
    threads = torch.get_num_threads()
    try:
        engine.main()
    finally:
        torch.set_num_threads(threads)
    report = json.loads(file.read_text())
    assert report["rows"] == dict.fromkeys(engine.ROW_NAMES, NOT_MEASURED)
    assert NOT_MEASURED in capsys.readouterr().out
