"""LoRA adapters of the DiT in diffusers' and PEFT's formats: loaded, merged at start, or chosen per request."""

from helios_engine.lora.adapter import Adapter, LowRank
from helios_engine.lora.applied import AdapterSet
from helios_engine.lora.load import load_adapter
from helios_engine.lora.merge import merge

__all__ = ["Adapter", "AdapterSet", "LowRank", "load_adapter", "merge"]
