"""Frames of wide gamut or high dynamic range, as a BT.709 screen shows them.

Sources: transfer functions of SMPTE ST 2084 (PQ), ARIB STD-B67 and ITU-R BT.2100 (HLG), BT.1886; the tone curve of
ITU-R BT.2390, annex 5; 203 cd/m2 for white in HDR from ITU-R BT.2408. Frames of BT.709 and BT.601 are left to libav.
Shapes: (H, W, 3).
"""

from typing import Any

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

Linear = NDArray[np.floating[Any]]
WHITE, PEAK = 203.0, 1000.0
"""cd/m2: white of the result, and the brightest of the source; what is brighter is shown as PEAK."""
_GAMMA = 2.4  # BT.1886, of the screen
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_HLG_A, _HLG_B, _HLG_C, _HLG_GAMMA = 0.17883277, 0.28466892, 0.55991073, 1.2
_WHITE_XY = (0.3127, 0.3290)
BT709, BT2020, P3 = (
    ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
)
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
"""x and y of red, green and blue; all have the white D65."""
Primaries = tuple[tuple[float, float], ...]
_WIDE = {ColorPrimaries.BT2020: BT2020, ColorPrimaries.SMPTE432: P3}
_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def needs_conversion(primaries: int, transfer: int) -> bool:
    """Whether a frame with these tags is none that a BT.709 screen shows as it is."""
    return transfer in _HDR or primaries in _WIDE


def converted(samples: NDArray[np.uint16], primaries: int, transfer: int) -> NDArray[np.uint8]:
    """RGB as stored, full range, 16 bit -> RGB of BT.709 and BT.1886, 8 bit."""
    signal: Linear = samples.astype(np.float32) / 65535
    hdr = transfer in _HDR
    gamut = _WIDE.get(ColorPrimaries(primaries), BT2020) if primaries in _WIDE or hdr else BT709
    if transfer == ColorTrc.SMPTE2084:
        light = pq_to_light(signal)
    elif transfer == ColorTrc.ARIB_STD_B67:
        light = hlg_to_light(signal)
    else:
        light = signal**_GAMMA
    light = light @ to_bt709(gamut).T
    if hdr:
        light = tone_mapped(light) / WHITE
    return to_bytes(np.clip(light, 0, 1) ** (1 / _GAMMA))


def to_bytes(values: Linear) -> NDArray[np.uint8]:
    """0 to 1 -> 0 to 255, rounded."""
    return (values * 255 + 0.5).astype(np.uint8)


def pq_to_light(signal: Linear) -> Linear:
    """cd/m2."""
    power = signal ** (1 / _M2)
    light: Linear = 10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)
    return light


def light_to_pq(light: Linear) -> Linear:
    """The inverse."""
    power = (np.maximum(light, 0) / 10000) ** _M1
    signal: Linear = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return signal


def hlg_to_light(signal: Linear) -> Linear:
    """cd/m2 on a screen of PEAK."""
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _HLG_C) / _HLG_A) + _HLG_B) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    light: Linear = PEAK * scene * np.maximum(luminance, 1e-9)[..., None] ** (_HLG_GAMMA - 1)
    return light


def tone_mapped(light: Linear) -> Linear:
    """cd/m2 up to PEAK -> up to WHITE: dark and middle tones as they are, a curve towards white above.

    The largest of a pixel's three is mapped, the others in proportion: hues stay.
    """
    largest = np.clip(light.max(axis=-1, keepdims=True), 1e-6, PEAK)
    white, top = light_to_pq(np.array([WHITE, PEAK]))
    white /= top
    knee = 1.5 * white - 0.5
    level = light_to_pq(largest) / top
    t = np.maximum((level - knee) / (1 - knee), 0)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * white
    mapped = pq_to_light(np.where(level > knee, curve, level) * top)
    result: Linear = np.minimum(light, PEAK) * (mapped / largest)
    return result


def to_bt709(primaries: Primaries) -> NDArray[np.float64]:
    """The matrix from linear RGB of these primaries to that of BT.709."""
    matrix: NDArray[np.float64] = np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries)
    return matrix


def _to_xyz(primaries: Primaries) -> NDArray[np.float64]:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = _WHITE_XY
    scale = np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))
    matrix: NDArray[np.float64] = columns * scale
    return matrix
