"""High dynamic range: frames coded by PQ or HLG -> pictures as an ordinary screen shows them.

Without it, the codes of such a film are taken for those of an ordinary one, and everything looks pale and grey.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

PQ, HLG = 16, 18  # ITU-T H.273, table 3
_BT2020 = 9  # table 2
_WHITE_NITS = 203.0  # of a white page, ITU-R BT.2408
_HLG_PEAK_NITS = 1000.0
"""The display for which ITU-R BT.2100 defines the gamma 1.2 of HLG, in cd/m2."""
_KNEE = 0.75  # of white: what is darker stays as it is
# Linear BT.2020 -> linear BT.709 (ITU-R BT.2087, inverted)
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


def is_hdr(frame: VideoFrame) -> bool:
    """Whether a frame's codes are those of PQ or HLG."""
    return frame.color_trc in (PQ, HLG)


def tone_mapped(codes: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """(H, W, 3) uint16 RGB coded by PQ (16) or HLG (18) -> (H, W, 3) uint8 sRGB.

    Light up to three quarters of a white page (203 cd/m2, BT.2408) is shown as it is; what is brighter comes ever
    closer to white and keeps its hue. Colours beyond BT.709 are cut off.
    """
    signal = codes.astype(np.float32) / np.float32(65_535)
    nits = _pq(signal) if transfer == PQ else _hlg(signal)
    light = nits / np.float32(_WHITE_NITS)
    if primaries == _BT2020:
        light = light @ _TO_BT709.T
    light = light.clip(0, None)
    brightest = light.max(axis=2, keepdims=True)
    rest = 1 - _KNEE
    rolled = _KNEE + rest * (1 - np.exp(-(brightest - _KNEE).clip(0, None) / rest))
    light *= np.where(brightest > _KNEE, rolled / np.maximum(brightest, 1e-6), 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clip(1e-6, None) ** (1 / 2.4) - 0.055)
    shown: np.ndarray = np.rint(coded.clip(0, 1) * 255).astype(np.uint8)
    return shown


def _pq(signal: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084 -> cd/m2."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** np.float32(1 / m2)
    nits: np.ndarray = np.float32(10_000) * ((power - c1).clip(0, None) / (c2 - c3 * power)) ** np.float32(1 / m1)
    return nits


def _hlg(signal: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100 -> cd/m2 on a display of 1,000 cd/m2, whose gamma is 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.678, 0.0593], np.float32)
    nits: np.ndarray = np.float32(_HLG_PEAK_NITS) * scene * luminance[..., None].clip(1e-6, None) ** np.float32(0.2)
    return nits
