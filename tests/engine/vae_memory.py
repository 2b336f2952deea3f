"""What the VAE does on a GPU, seen without one: layouts and live bytes, on meta tensors or real ones."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Watched(TorchDispatchMode):
    """Counts the bytes that operators' results hold at a time, and keeps what convolutions and copies are given.

    known: what exists already, weights and inputs; views of them do not count. The meta device knows no cuDNN, which
    lays its results out as it finds its input.
    """

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.convolved: list[torch.Size] = []
        self.elsewhere: list[torch.Size] = []
        """Inputs of convolutions that are not channels last."""
        self.copied: list[torch.Size] = []
        """What was copied into another layout."""
        self.largest = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name in {"aten::convolution", "aten::conv2d", "aten::conv3d"}:
            layout = CHANNELS_LAST[args[0].dim()]
            self.convolved.append(args[0].shape)
            if not args[0].is_contiguous(memory_format=layout):
                self.elsewhere.append(args[0].shape)
            elif out.is_meta:
                out = out.contiguous(memory_format=layout)
        if name in {"aten::clone", "aten::_to_copy"} and out.stride() != args[0].stride():
            self.copied.append(args[0].shape)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        self.live += storage.nbytes()
        self.peak, self.largest = max(self.peak, self.live), max(self.largest, tensor.numel())
        weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.live -= size


class Launched:
    """Stands for a kernel: takes launches and does nothing."""

    def __getitem__(self, grid: object) -> "Launched":
        return self

    def __call__(self, *arguments: object, **options: object) -> None:
        pass
