"""Stage times: assumed for a GPU, or of a benchmark result file."""

import json
from pathlib import Path
from typing import Any

from benchmarks.capacity_model.inputs import StageTimes

TFLOP_PER_CHUNK = {"DiT, pyramid steps 1+1+1": 416.0, "DiT, pyramid steps 2+2+2": 832.0, "VAE decode": 69.0}
"""Counted, 2 FLOP per multiply-add: one chunk (33 frames) at 384 x 640."""
DIT_TFLOPS, VAE_TFLOPS = 700.0, 200.0
ENCODE_FPS = 300.0

ASSUMED = StageTimes(
    denoise_s=(TFLOP_PER_CHUNK["DiT, pyramid steps 1+1+1"] / DIT_TFLOPS,),
    decode_s=(TFLOP_PER_CHUNK["VAE decode"] / VAE_TFLOPS,),
    encode_s=(33 / ENCODE_FPS,),
    text_s=(0.05,),
    call_s=0.015,
    claim_s=0.01,
    begin_s=0.002,
    append_s=0.005,
    publish_s=0.2,
    source=(
        "ASSUMED, not measured: 416 TFLOP of DiT per chunk (counted; 384x640, pyramid steps 1+1+1) at an assumed "
        f"{DIT_TFLOPS:.0f} TFLOP/s (70 % of an H100 datasheet's dense bf16), 69 TFLOP of VAE (counted) at "
        f"an assumed {VAE_TFLOPS:.0f} TFLOP/s (40 % of the datasheet's dense TF32), H.264 at an assumed "
        f"{ENCODE_FPS:.0f} frames/s, text 50 ms, overheads of 2 to 200 ms between the stages"
    ),
)


def stage_times(path: Path, setting: str = "") -> StageTimes:
    """Of a result file: what benchmarks.service writes (`setting` names one of its results), or a StageTimes as JSON.

    Raises ValueError if the file is neither.
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
