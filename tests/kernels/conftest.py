"""Where the Triton kernels run: compiled on a GPU, or interpreted in the process that test_interpreted.py starts.

Triton reads TRITON_INTERPRET once, when a kernel is defined. In a process of its own it cannot turn the kernels of
other tests into interpreted ones, whatever has been imported before.
"""

import os

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    """The device whose tensors the launchers take here."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU; on a CPU test_interpreted.py runs it")
    return torch.device("cuda")
