"""torch.compile for the DiT's blocks, and where compiled code is kept between processes."""

import os
from pathlib import Path

import torch

from helios_engine.model.transformer import HeliosTransformer

VARIANTS_OF_A_BLOCK = 64
"""Shapes that may be compiled: pyramid stages, sizes of video, with and without guidance, each as last block too."""
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


def use_cache(folder: Path) -> None:
    """Keeps what this process compiles under the folder, for the next process.

    To be called before anything is compiled. A folder that the environment names already is kept.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get("TORCHINDUCTOR_CACHE_DIR") == default_cache_dir():
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]  # nobody's wish: torch puts it there when its compiler is imported
    for variable, name in CACHES.items():
        Path(os.environ.setdefault(variable, str(folder / name))).mkdir(parents=True, exist_ok=True)


def compile_blocks(transformer: HeliosTransformer) -> None:
    """Has the blocks compiled at their first call with each shape. All blocks share one program, as they share code."""
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, VARIANTS_OF_A_BLOCK)
    for block in transformer.blocks:
        block.compile(dynamic=False)
    transformer.compiled = True
