"""The GPUs, memory and cores of a machine: this one, or one that is described in words."""

import ctypes
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from helios_engine.errors import InvalidField
from helios_engine.vae.cudnn import FULL_CUDNN

GB = 10**9
DESCRIPTION = re.compile(r"(?P<count>\d+)x(?P<memory>\d+(\.\d+)?)")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
LEAST_CAPABILITY = (8, 0)
"""The lowest compute capability of a GPU that computes in bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. memory_bytes: all of it, whoever uses it now."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """nvlink: whether the GPUs are joined by it. cudnn: its version as torch gives it, 0 without."""

    gpus: tuple[Gpu, ...]
    host_bytes: int
    cores: int
    nvlink: bool = False
    cudnn: int = 0

    def __str__(self) -> str:
        """In words, for people."""
        gpus = "no GPU"
        if self.gpus:
            names = sorted({f"{gpu.name}, {gpu.memory_bytes / GB:.0f} GB" for gpu in self.gpus})
            gpus = f"{len(self.gpus)} x {' or '.join(names)}{' (NVLink)' if self.nvlink else ''}"
        return f"{gpus}; {self.host_bytes / GB:.0f} GB of host memory; {self.cores} cores"


def this_machine(host_bytes: int | None = None) -> Machine:
    """What torch finds here. host_bytes: as if there were so much host memory; None: what there is.

    GPUs are looked at in a process of its own: this one takes no memory of any.
    """
    import torch

    gpus: tuple[Gpu, ...] = ()
    linked, cudnn = False, 0
    if torch.cuda.is_available():
        told = subprocess.run([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(told)
        gpus = tuple(Gpu(**gpu | {"capability": tuple(gpu["capability"])}) for gpu in found["gpus"])
        linked, cudnn = found["nvlink"], found["cudnn"]
    memory = _host_bytes() if host_bytes is None else host_bytes
    return Machine(gpus=gpus, host_bytes=memory, cores=_cores(), nvlink=linked, cudnn=cudnn)


def described(gpus: str, host_bytes: int | None = None, *, cores: int | None = None) -> Machine:
    """The machine with GPUs like an H100 "2x80": number and memory, in GB (10^9 bytes) each; "0" for none.

    host_bytes, cores: None: as here. Raises InvalidField.
    """
    match = DESCRIPTION.fullmatch(gpus)
    if gpus != "0" and (match is None or not 1 <= int(match["count"]) <= 64 or not float(match["memory"])):
        raise InvalidField("gpus", gpus, "number x GB, for example 1x80 or 8x141, or 0 for none")
    count, memory = (int(match["count"]), float(match["memory"])) if match else (0, 0.0)
    one = Gpu(name="GPU", memory_bytes=int(memory * GB), capability=(9, 0))
    return Machine(
        gpus=(one,) * count,
        host_bytes=_host_bytes() if host_bytes is None else host_bytes,
        cores=_cores() if cores is None else cores,
        nvlink=count > 1,
        cudnn=FULL_CUDNN,
    )


def _host_bytes() -> int:
    """Bytes of this machine's memory, or what the container may have of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for file in CGROUP_LIMITS if file.is_file() and (text := file.read_text().strip()).isdecimal()]
    return min(total, *limits) if limits else total


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _nvlink() -> bool:
    """Whether the first GPU has a link that is up. False where the driver's library does not say."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        device, up = ctypes.c_void_p(), ctypes.c_uint(0)
        answers = (
            library.nvmlInit_v2(),
            library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)),
            library.nvmlDeviceGetNvLinkState(device, 0, ctypes.byref(up)),
        )
    except (OSError, AttributeError):
        return False
    return not any(answers) and bool(up.value)


def _print_gpus() -> None:
    import torch

    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    gpus = [Gpu(name=one.name, memory_bytes=one.total_memory, capability=(one.major, one.minor)) for one in properties]
    linked = len(gpus) > 1 and _nvlink()
    print(json.dumps({"gpus": list(map(asdict, gpus)), "nvlink": linked, "cudnn": torch.backends.cudnn.version() or 0}))


if __name__ == "__main__":
    _print_gpus()
