"""Block offloading: the same bits, never more than the budget, each block copied ahead of its use.

What is resident is measured here by the storages that blocks compute from and that are still alive, not by what
`BlockOffload` says of itself.
"""

import gc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from helios_engine.configs import SchedulerConfig, TransformerConfig
from helios_engine.loading.tiny import random_weights
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.offload import BlockOffload, offload_blocks
from helios_engine.offload.packing import packing
from helios_engine.offload.slots import HostBuffer, Slot
from helios_engine.request import GenerationRequest
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState

LAYERS = 6
CONFIG = TransformerConfig(
    num_attention_heads=2,
    attention_head_dim=24,
    text_dim=32,
    freq_dim=32,
    ffn_dim=96,
    num_layers=LAYERS,
    rope_dim=(8, 8, 8),
    is_amplify_history=True,
)
BUDGETS = pytest.mark.parametrize("blocks", [1, 1.5, 2, 3, LAYERS - 1, LAYERS, LAYERS + 3])


def model(dtype: torch.dtype = torch.float32) -> HeliosTransformer:
    transformer = HeliosTransformer(CONFIG).eval().requires_grad_(False)
    shapes = {name: parameter.shape for name, parameter in transformer.named_parameters()}
    transformer.load_state_dict(random_weights(shapes, torch.Generator().manual_seed(3)))
    return transformer.to(dtype)


def block_bytes() -> int:
    return packing(model().blocks[0]).size


def run(transformer: HeliosTransformer, forwards: int = 2) -> list[torch.Tensor]:
    """Outputs of several forwards of two prompts, the second prompt encoded between forwards."""
    generator = torch.Generator().manual_seed(1)
    device, dtype = transformer.proj_out.weight.device, transformer.proj_out.weight.dtype

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    outputs = []
    with torch.inference_mode():
        history = transformer.encode_history(random(1, 16, 19, 8, 8), random(1, 16, 1, 8, 8))
        for _prompt in range(2):
            text = transformer.encode_text(random(1, 16, 32))
            outputs += [transformer(random(1, 16, 9, 4, 4), 700, history, text) for _ in range(forwards)]
    return outputs


class Residency:
    """Watches, at every block call, the storages that blocks have computed from so far and that are still alive."""

    def __init__(self, transformer: HeliosTransformer) -> None:
        self.peak, self._alive = 0, dict[StorageWeakRef, int]()
        for block in transformer.blocks:
            block.register_forward_pre_hook(self._look)

    def _look(self, block: nn.Module, _args: Any) -> None:
        for parameter in block.parameters():
            storage = parameter.untyped_storage()
            self._alive.setdefault(StorageWeakRef(storage), storage.nbytes())
        self._alive = {storage: size for storage, size in self._alive.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self._alive.values()))


@BUDGETS
def test_the_same_bits_within_the_budget(blocks: float) -> None:
    budget, transformer = int(blocks * block_bytes()), model()
    offload = offload_blocks(transformer, "cpu", budget)
    watched = Residency(transformer)
    for ours, plain in zip(run(transformer), run(model()), strict=True):
        assert torch.equal(ours, plain)
    assert 0 < watched.peak <= budget
    assert watched.peak <= offload.peak_resident_bytes <= budget
    assert offload.resident_bytes == min(int(blocks), LAYERS) * block_bytes()


def _new_memory_each_time(offload: BlockOffload, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, fill = [], Slot.fill

    def fill_new(slot: Slot, *args: Any) -> None:
        kept.append(slot.bytes)
        slot.bytes = torch.empty_like(slot.bytes)
        fill(slot, *args)

    monkeypatch.setattr(Slot, "fill", fill_new)


def _a_slot_more(offload: BlockOffload, _: pytest.MonkeyPatch) -> None:
    offload._slots.append(Slot(block_bytes(), torch.device("cpu"), None))


@pytest.mark.parametrize("wrong", [_new_memory_each_time, _a_slot_more])
def test_the_measure_catches_what_stays_too_long(
    wrong: Callable[[BlockOffload, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer = model()
    wrong(offload_blocks(transformer, "cpu", 2 * block_bytes()), monkeypatch)
    watched = Residency(transformer)
    run(transformer)
    assert watched.peak > 2 * block_bytes()


def test_the_measure_catches_blocks_that_are_all_in_place() -> None:
    transformer = model()
    watched = Residency(transformer)
    run(transformer)
    assert watched.peak > (LAYERS - 1) * block_bytes()


def test_memory_of_the_unpacked_weights_is_released() -> None:
    transformer = model()
    before = [StorageWeakRef(parameter.untyped_storage()) for parameter in transformer.blocks.parameters()]
    offload_blocks(transformer, "cpu", 3 * block_bytes())
    gc.collect()
    assert all(storage.expired() for storage in before)


def test_blocks_that_are_not_on_the_device_lie_in_host_memory() -> None:
    transformer = model()
    offload = offload_blocks(transformer, "cpu", 3 * block_bytes())
    run(transformer)
    on_device = {slot.bytes.data_ptr() for slot in offload._slots} | {b.data_ptr() for b in offload._residents}
    for index, block in enumerate(transformer.blocks):
        storages = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
        assert len(storages) == 1
        assert (storages <= on_device) == (index in offload.blocks_on_device)


@pytest.mark.parametrize(
    ("blocks", "held"),
    [
        (1, [(0,), (1,), (2,), (3,), (4,), (5,)]),
        (2, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)]),
        (4, [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 3, 4), (0, 1, 4, 5), (0, 1, 2, 5)]),
        (LAYERS, [tuple(range(LAYERS))] * LAYERS),
    ],
)
def test_the_next_block_is_copied_before_the_current_one_computes(blocks: int, held: list[tuple[int, ...]]) -> None:
    transformer, seen = model(), list[tuple[int, ...]]()
    offload = offload_blocks(transformer, "cpu", blocks * block_bytes())
    for block in transformer.blocks:
        block.register_forward_pre_hook(lambda *_: seen.append(offload.blocks_on_device))
    run(transformer, forwards=3)
    assert seen == held * 6


@pytest.mark.parametrize(("blocks", "streamed"), [(1, 6), (2, 6), (3, 5), (LAYERS - 1, 3), (LAYERS, 0)])
def test_each_streamed_block_is_copied_once_a_pass(blocks: int, streamed: int) -> None:
    transformer = model()
    offload = offload_blocks(transformer, "cpu", blocks * block_bytes())
    run(transformer)
    passes = 6  # two prompts, each encoded and used twice
    ahead = 1 if blocks >= 2 and streamed else 0  # copied for a next step that does not come
    assert offload.transfers == passes * streamed + ahead
    assert offload.transferred_bytes == offload.transfers * block_bytes()


def test_a_budget_below_the_largest_block_is_refused() -> None:
    least = block_bytes()
    offload_blocks(model(), "cpu", least)
    transformer = model()
    with pytest.raises(ValueError) as caught:
        offload_blocks(transformer, "cpu", least - 1)
    assert (
        str(caught.value) == f"budget_bytes: {least - 1} is not allowed; allowed: at least {least}, the largest block"
    )
    assert torch.equal(run(transformer)[0], run(model())[0])  # left as it was


def test_mixed_dtypes_survive() -> None:
    def mixed() -> HeliosTransformer:
        transformer = model(torch.bfloat16)
        for block in transformer.blocks:
            block.norm2.float()
        return transformer

    transformer = mixed()
    offload_blocks(transformer, "cpu", int(2.5 * packing(transformer.blocks[0]).size))
    assert {parameter.dtype for parameter in transformer.blocks[0].parameters()} == {torch.bfloat16, torch.float32}
    for ours, plain in zip(run(transformer), run(mixed()), strict=True):
        assert torch.equal(ours, plain)


@BUDGETS
def test_tables_of_blocks_that_are_elsewhere_are_not_read(blocks: float) -> None:
    transformer = model()
    offload_blocks(transformer, "cpu", int(blocks * block_bytes()))
    for name, parameter in transformer.blocks.named_parameters():
        if name.endswith(("scale_shift_table", "history_key_scale")):
            parameter.data.fill_(float("nan"))
    for ours, plain in zip(run(transformer), run(model()), strict=True):
        assert torch.equal(ours, plain)


def test_a_failed_forward_leaves_the_next_one_right() -> None:
    transformer = model()
    offload_blocks(transformer, "cpu", 2 * block_bytes())
    failing = transformer.blocks[3].register_forward_hook(_fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(transformer)
    failing.remove()
    for ours, plain in zip(run(transformer), run(model()), strict=True):
        assert torch.equal(ours, plain)


def _fail(*_: Any) -> None:
    raise RuntimeError("out of memory")


def test_whole_chunks_are_the_same() -> None:
    request = GenerationRequest(prompt="a lake", height=64, width=64, num_frames=33, seed=5, pyramid_steps=(1, 1, 1))
    prompt = torch.randn(1, 512, 32, generator=torch.Generator().manual_seed(2))
    chunks = []
    for budget in (None, int(2.5 * block_bytes())):
        transformer = model()
        if budget is not None:
            offload_blocks(transformer, "cpu", budget)
        denoiser = Denoiser(transformer, SchedulerConfig())
        chunks.append(denoiser.denoise_chunk(DenoiseState.initial(request), prompt)[0])
    assert torch.equal(*chunks)


def test_copies_and_compute_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    compute, copies = mock.Mock(name="compute"), mock.Mock(name="copies")

    def on_stream(stream: object) -> nullcontext[None]:
        log.append("copy" if stream is copies else "wrong stream")
        return nullcontext()

    copies.wait_stream = lambda stream: log.append("copies wait for compute" if stream is compute else "wrong stream")
    compute.wait_event = lambda event: log.append("compute waits for the copy")
    event = mock.Mock(record=lambda stream: log.append("copied" if stream is copies else "wrong stream"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: log.append("memory is used by copies"))
    cpu = torch.device("cpu")
    slot, weights = Slot(8, cpu, copies), HostBuffer(8, cpu)
    for block in range(2):
        slot.fill(block, weights)
        slot.use()
    turn = ["copies wait for compute", "copy", "copied", "compute waits for the copy"]
    assert log == ["memory is used by copies", *turn, *turn]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BUDGETS
def test_on_a_gpu_the_same_bits_within_the_budget(blocks: float) -> None:
    plain, transformer = model().cuda(), model()
    expected = run(plain)
    rest = sum(part.nbytes for name, part in plain.named_parameters() if not name.startswith("blocks."))
    del plain
    gc.collect()
    budget, before = int(blocks * block_bytes()), torch.cuda.memory_allocated()
    offload = offload_blocks(transformer, "cuda", budget)
    parts = sum(1 for name, _ in transformer.named_parameters() if not name.startswith("blocks."))
    # the allocator rounds each tensor up to 512 bytes
    taken = torch.cuda.memory_allocated() - before
    tables = [table for table in transformer.kept_tables or () if table is not None]
    rest += sum(table.nbytes for table in tables)
    assert taken <= budget + rest + 512 * (parts + LAYERS + len(tables))
    watched = Residency(transformer)
    for _ in range(10):  # a copy that overtakes the compute, or the other way, shows as other bits
        for ours, theirs in zip(run(transformer), expected, strict=True):
            assert torch.equal(ours, theirs)
    assert watched.peak <= offload.peak_resident_bytes <= budget
    assert all(host.bytes.is_pinned() for host in offload._host.values())
