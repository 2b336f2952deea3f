"""The engine benchmark's own code, on tiny models: that it compares the same work. Nothing is timed here."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import engine, fp8, vae_precision
from benchmarks.ablation import ablations
from benchmarks.ablation_case import Ablation
from benchmarks.ablation_gpu import GPU_ROWS, gpu_ablations
from benchmarks.peers import Peers, build, compiled
from benchmarks.rows import rows
from benchmarks.sizes import SIZES
from helios_engine.transformer import HeliosTransformer
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
        if row.name.startswith("end to end"):  # the same frames, rounded to 8 bits
            assert (ours - theirs).abs().max() <= 1 / 255
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
    facts = engine.with_fastest_mode(peers, size, ["graphs", "off"])[1]
    assert facts["taken"] == "off"
    assert facts["chunk [1,1,1], s"]["graphs"].startswith("failed: compile: 'graphs' is not allowed on cpu")
    assert facts["chunk [1,1,1], s"]["off"] > 0


def test_a_row_without_time_to_compile_says_so(peers: Peers) -> None:
    (row,) = (row for row in rows(SIZES["tiny"], peers) if row.name == "text encode")
    record = engine.measure_row(row, peers, None, SIZES["tiny"], runs=1, compile_until=0.0)
    assert record["diffusers compiled"] == engine.NOT_MEASURED
    assert set(record["ratio"]) == {"diffusers eager"}


def test_decoding_in_bfloat16_is_close_and_not_equal() -> None:
    compared = vae_precision.compare(SIZES["tiny"], runs=0)
    assert 35 < compared["psnr_db"] < 70
    assert 0 < compared["largest_difference_levels"] < 20
    one = torch.zeros(10, dtype=torch.uint8)
    assert vae_precision.psnr(one, one + 255) == 0.0
    assert vae_precision.psnr(one, one + 1) == pytest.approx(48.13, abs=0.01)


def test_8_bit_layers_change_latents_a_little_and_no_speed_is_claimed() -> None:
    compared = fp8.compare(SIZES["tiny"], chunks=2, steps=1, runs=1)
    assert all(1e-4 < error < 0.1 for error in compared["latent_error_by_chunk"])
    assert set(compared["seconds"].values()) == {fp8.NOT_MEASURED}


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
    assert report["rows"] == dict.fromkeys(engine.ROW_NAMES, engine.NOT_MEASURED)
    assert engine.NOT_MEASURED in capsys.readouterr().out
