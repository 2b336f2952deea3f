"""Runs the DiT with its blocks' weights in host memory, within a budget of bytes on the compute device.

The first blocks stay on the device, as many as fit beside one slot, or two where the budget allows; the others are
copied through the slots in turn. With two slots the next block is copied while the current one computes, in a circle:
the last block of a step brings the first of the next step.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from helios_engine.model.attention import Attention, TextKeysValues
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.offload.packing import Packing, packing
from helios_engine.offload.slots import HostBuffer, Slot
from helios_kernels.backend import refuse_gradient

MAX_SLOTS = 2
"""One that computes, one that is copied into; a third would only take space from blocks that could stay."""


def offload_blocks(transformer: HeliosTransformer, device: str | torch.device, budget_bytes: int) -> "BlockOffload":
    """Installs offloading on a transformer: once, with its weights in host memory, before its first forward.

    budget_bytes: device memory for the weights of all blocks together, the prefetched one included. Everything else
    of the transformer moves to `device` and does not count, nor do copies of the blocks' modulation tables, which are
    read for all blocks at once (0.1 MB a block at full size). Raises ValueError for less than the largest block takes.
    Results keep their bits. Not for training, CUDA graphs or concurrent forwards; `transformer.to` would undo it.
    """
    return BlockOffload(transformer, torch.device(device), budget_bytes)


class BlockOffload:
    """Which blocks are on the device, and what they take there.

    block_bytes: what each block takes, gaps of alignment included. resident_blocks: the first ones, which stay.
    resident_bytes, peak_resident_bytes: storage allocated on the device for blocks, now and at most.
    transfers, transferred_bytes: blocks copied into slots so far.
    """

    def __init__(self, transformer: HeliosTransformer, device: torch.device, budget_bytes: int) -> None:
        self._packings = [packing(block) for block in transformer.blocks]
        self.block_bytes = tuple(packed.size for packed in self._packings)
        self.resident_blocks, slots = _plan(self.block_bytes, budget_bytes)
        self.transfers = self.transferred_bytes = self.peak_resident_bytes = 0

        transformer.kept_tables = transformer.tables().to(device)  # the model reads those of all blocks at once
        for name, part in transformer.named_children():
            if name != "blocks":
                part.to(device)
        self._host = {
            index: _move_to_host(packed, device)
            for index, packed in enumerate(self._packings[self.resident_blocks :], self.resident_blocks)
        }
        self._residents: list[torch.Tensor] = []
        self._slots: list[Slot] = []
        for packed in self._packings[: self.resident_blocks]:
            self._residents.append(_move_to(packed, device))
            self._note_peak()
        copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        for _ in range(slots):
            self._slots.append(Slot(max(self.block_bytes[self.resident_blocks :]), device, copy_stream))
            self._note_peak()
        for index, block in enumerate(transformer.blocks):
            if slots:
                block.register_forward_pre_hook(partial(self._before_block, index))
                _before_keys_values(block.attn2, partial(self._bring, index))  # type: ignore[arg-type]

    @property
    def resident_bytes(self) -> int:
        """Bytes of the storages that hold blocks on the device."""
        buffers = self._residents + [slot.bytes for slot in self._slots]
        return sum(buffer.untyped_storage().nbytes() for buffer in buffers)

    @property
    def blocks_on_device(self) -> tuple[int, ...]:
        """Blocks whose weights are on the device, or on their way."""
        held = [slot.block for slot in self._slots if slot.block is not None]
        return (*range(self.resident_blocks), *sorted(held))

    def _note_peak(self) -> None:
        self.peak_resident_bytes = max(self.peak_resident_bytes, self.resident_bytes)

    def _before_block(self, index: int, block: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        refuse_gradient("BlockOffload", *args[:2], *(block.parameters() if torch.is_grad_enabled() else ()))
        self._bring(index)

    def _bring(self, index: int) -> None:
        """Has block `index` in place for what is queued next, and starts the copies of those that follow it."""
        wanted = self._streamed_from(index)
        free = [slot for slot in self._slots if slot.block not in wanted]
        for block in wanted:
            if all(slot.block != block for slot in self._slots):
                self._copy(block, free.pop())
        for slot in self._slots:
            if slot.block == index:
                slot.use()

    def _streamed_from(self, index: int) -> list[int]:
        """The streamed blocks at and after `index`, in a circle, as many as there are slots."""
        streamed = sorted(self._host)
        start = max(index - self.resident_blocks, 0)
        return [streamed[(start + ahead) % len(streamed)] for ahead in range(len(self._slots))]

    def _copy(self, block: int, slot: Slot) -> None:
        if slot.block is not None:
            self._packings[slot.block].point_to(self._host[slot.block].bytes)
        slot.fill(block, self._host[block])
        self._packings[block].point_to(slot.bytes)
        self.transfers += 1
        self.transferred_bytes += self.block_bytes[block]


def _plan(sizes: tuple[int, ...], budget: int) -> tuple[int, int]:
    """How many of the first blocks stay, and how many slots the others are copied through."""
    if sum(sizes) <= budget:
        return len(sizes), 0
    for slots in range(MAX_SLOTS, 0, -1):
        for resident in range(len(sizes) - 1, -1, -1):
            if sum(sizes[:resident]) + slots * max(sizes[resident:]) <= budget:
                return resident, slots
    raise ValueError(f"budget_bytes: {budget} is not allowed; allowed: at least {max(sizes)}, the largest block")


def _move_to_host(packed: Packing, device: torch.device) -> HostBuffer:
    host = HostBuffer(packed.size, device)
    packed.fill(host.bytes)
    packed.point_to(host.bytes)
    return host


def _move_to(packed: Packing, device: torch.device) -> torch.Tensor:
    buffer = torch.empty(packed.size, dtype=torch.uint8, device=device)
    packed.fill(buffer)
    packed.point_to(buffer)
    return buffer


def _before_keys_values(attention: Attention, bring: Callable[[], None]) -> None:
    """Has `bring` called before `keys_values`, which is called outside of the block's forward, where no hook fires."""
    keys_values = attention.keys_values

    def with_weights(text_BLD: torch.Tensor, last_counts: int = 1) -> TextKeysValues:
        bring()
        return keys_values(text_BLD, last_counts)

    attention.keys_values = with_weights  # type: ignore[method-assign]
