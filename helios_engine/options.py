"""The choices that options of the engine have. Free of torch, so that a configuration can name them."""

from typing import Literal

Auto = Literal["auto"]
"""The choice is made for the machine: see `helios_engine.planning`."""
VariantName = Literal["base", "mid", "distilled"]
"""The published models: see `helios_engine.variants`."""
DtypeName = Literal["float32", "bfloat16"]
"""What a model computes in, as torch names it."""
VAEDtypeName = Literal["float32", "float16", "bfloat16"]
"""What the VAE decodes in. float16 has the mantissa of TF32, in which a GPU computes float32's convolutions anyway."""
DeviceType = Literal["cpu", "cuda"]
"""What a model runs on, as torch names it."""
GuidanceBatching = Literal["auto", "always", "never"]
"""Whether the two passes of classifier-free guidance run as one batch. auto: if the device's memory allows it."""
CompileMode = Literal["off", "regional", "graphs"]
"""off: the fused kernels, launched one by one. regional: one block is compiled and serves all. graphs: the fused
kernels as CUDA graphs."""
AttentionKernel = Literal["auto", "torch", "cudnn", "flash", "efficient", "flash_attention_3"]
"""auto: by timing. Two GPUs of one type may then choose differently, and their results differ in the last bits."""
