"""Memory that weights pass through: buffers on the host, and slots on the compute device that they are copied into."""

import mmap
import weakref

import torch

PORTABLE = 1
"""cudaHostRegisterPortable: pinned for every CUDA context."""


class HostBuffer:
    """`bytes`: (size,) uint8 in host memory, page-locked for a device that is a GPU, which then copies on its own.

    Raises RuntimeError when the memory cannot be page-locked.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        # pages of its own: a page can be locked once only. torch's pinned allocator would round up to a power of two,
        # at full size from 0.7 to 1 GiB a block
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.bytes = torch.frombuffer(pages, dtype=torch.uint8)
        if device.type == "cuda":
            status = int(torch.cuda.cudart().cudaHostRegister(self.bytes.data_ptr(), size, PORTABLE))
            if status != 0:
                raise RuntimeError(f"{size} bytes of host memory cannot be page-locked: cudaHostRegister: {status}")
            weakref.finalize(self, _unpin, self.bytes, device)  # holds the memory until then


def _unpin(buffer: torch.Tensor, device: torch.device) -> None:
    torch.cuda.synchronize(device)  # no copy is under way
    torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())


class Slot:
    """A buffer on the compute device that blocks take turns in. `block`: the one in it.

    size: bytes. copy_stream: what copies run on beside the compute, None on the CPU, where copies are synchronous.
    """

    def __init__(self, size: int, device: torch.device, copy_stream: torch.cuda.Stream | None) -> None:
        self.block: int | None = None
        self.bytes = torch.empty(size, dtype=torch.uint8, device=device)
        self._copy_stream = copy_stream
        if copy_stream is not None:
            self.bytes.record_stream(copy_stream)  # once freed it is not handed out before its last copy has ended
            self._user = torch.cuda.current_stream(device)
            self._copied = torch.cuda.Event()

    def fill(self, block: int, weights: HostBuffer) -> None:
        """Starts to copy the block's weights into the slot, after all compute queued by its users so far."""
        self.block = block
        target = self.bytes[: len(weights.bytes)]
        if self._copy_stream is None:
            target.copy_(weights.bytes)
            return
        self._copy_stream.wait_stream(self._user)
        with torch.cuda.stream(self._copy_stream):
            target.copy_(weights.bytes, non_blocking=True)
            self._copied.record(self._copy_stream)

    def use(self) -> None:
        """Makes the current stream wait for the copy; what it is given from now on may read the slot."""
        if self._copy_stream is not None:
            self._user = torch.cuda.current_stream(self.bytes.device)
            self._user.wait_event(self._copied)
