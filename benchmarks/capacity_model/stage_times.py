"""Stage times: assumed for a GPU, or of a benchmark result file."""

import json
from pathlib import Path
from typing import Any

from benchmarks.capacity_model.inputs import StageTimes
from benchmarks.counts import parts
from benchmarks.sizes import SIZES
from helios_engine.request import FRAMES_PER_CHUNK

DIT_TFLOPS, VAE_TFLOPS = 700.0, 200.0
ENCODE_FPS = 300.0


def chunk_tflop() -> tuple[float, float]:
    """One chunk at full size, 384 x 640: the DiT at pyramid steps 1+1+1, and the VAE's decoding."""
    tflop = {
        part: sum(product.flops for product in products) / 1e12 for part, products in parts(SIZES["gpu-full"]).items()
    }
    return sum(tflop[f"dit stage {stage}"] for stage in range(3)), tflop["vae decode"]


_DIT_TFLOP, _DECODE_TFLOP = chunk_tflop()

ASSUMED = StageTimes(
    denoise_s=(_DIT_TFLOP / DIT_TFLOPS,),
    decode_s=(_DECODE_TFLOP / VAE_TFLOPS,),
    encode_s=(FRAMES_PER_CHUNK / ENCODE_FPS,),
    text_s=(0.05,),
    call_s=0.015,
    claim_s=0.01,
    begin_s=0.002,
    append_s=0.005,
    publish_s=0.2,
    source=(
        f"ASSUMED, not measured: {_DIT_TFLOP:.0f} TFLOP of DiT per chunk (counted; 384x640, pyramid steps 1+1+1) at an "
        f"assumed {DIT_TFLOPS:.0f} TFLOP/s (70 % of an H100 datasheet's dense bf16), {_DECODE_TFLOP:.0f} TFLOP of VAE "
        f"(counted) at an assumed {VAE_TFLOPS:.0f} TFLOP/s (40 % of the datasheet's dense TF32), H.264 at an assumed "
        f"{ENCODE_FPS:.0f} frames/s, text 50 ms, overheads of 2 to 200 ms between the stages"
    ),
)


def stage_times(path: Path, setting: str = "") -> StageTimes:
    """Reads stage times from a file: a result of benchmarks.service, or a StageTimes as JSON.

    setting: which of a result's settings; empty for the first. Raises ValueError if the file is neither.
    """
    report = json.loads(path.read_text())
    if "denoise_s" in report:
        listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in report.items()}
        return StageTimes(**{"source": f"file {path.name}", **listed})
    results = report.get("results", {})
    setting = setting or next(iter(results), "")
    try:
        return _of_service(results[setting], f"measured: {path.name}, {setting!r}, {report['conditions']['cpu']}")
    except KeyError as error:
        raise ValueError(f"{path}: has no {error} for setting {setting!r}; settings: {sorted(results)}") from None


def _of_service(result: dict[str, Any], source: str) -> StageTimes:
    stage_s = result["service"]["stage_s"]
    between_s = max(result["overhead_ms"]["between"] / 1e3, 0.0)
    return StageTimes(
        denoise_s=(stage_s["denoise"],),
        decode_s=(stage_s["decode"],),
        encode_s=(stage_s["encode"],),
        text_s=(stage_s["text"],),
        call_s=between_s / 2,  # of an only chunk: one call of the denoiser, one of the decoder
        source=source,
    )
