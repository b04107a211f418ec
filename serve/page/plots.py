"""Small pictures with a scale, for people: plots of sound and motion, and colour maps of depth and thermal images.

The readers run in decode workers (see `preprocess.decoding`), so that a bad file does no more harm here than in a
search.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from preprocess.readers import audio, depth, imu, thermal
from preprocess.source import Limits, Plan, Segment, Source

SIDE = 360
"""The longer side of a colour map, in pixels."""
_BUCKETS = 120  # a plot shows the least and the greatest value in each bucket
_BARS = 64
"""Bars of a waveform, which fill the width of a card on the page."""
_LOUDNESS = audio.AudioConfig(rate_hz=8000, clip_s=24 * 3600.0, clips=1)  # one clip, as long as the limits allow

# Every 32nd entry of the colour maps viridis and inferno (van der Walt and Smith, CC0), which people can read without
# seeing hues.
_STOPS = {
    "viridis": "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
    "inferno": "000004 210c4a 57106e 8a226a bc3754 e45a31 f98e09 f9cb35 fcffa4",
}
_STANDARD_GRAVITY = 9.80665  # m/s2 in one g


@dataclass(frozen=True)
class ColourMap:
    """A picture as a `data:` address, and the meaning of its colours: `low` and `high` are labels with their unit."""

    address: str
    low: str
    high: str
    gradient: str


def depth_map(source: Source, config: None, limits: Limits, plan: Plan) -> list[Segment]:
    """A depth file -> one segment with views (1, H, W) float32 metres, H and W at most `SIDE`. Raises MediaError."""
    metres, notes = depth.read_depth_m(source, limits)
    return [Segment(_small(metres)[None], notes=notes)]


def thermal_map(source: Source, config: None, limits: Limits, plan: Plan) -> list[Segment]:
    """A thermal file -> one segment with views (1, H, W) float32 in its own unit. Raises MediaError."""
    values, notes = thermal.read_thermal(source, limits)
    return [Segment(_small(values)[None], notes=notes)]


def motion(source: Source, config: None, limits: Limits, plan: Plan) -> list[Segment]:
    """A motion recording -> one segment with views (1, 6, 2 n): the least and greatest value in each bucket, in SI
    units.

    `source.hints.start_s` and `end_s` confine the recording. Raises MediaError.
    """
    series = imu.read_imu(source, limits)
    start_s = source.hints.start_s or 0.0
    end_s = series.duration_s if source.hints.end_s is None else source.hints.end_s
    inside = (series.time_s >= start_s) & (series.time_s <= end_s)
    values = series.values[inside] if inside.any() else series.values
    columns = [
        np.stack([part.min(0), part.max(0)]) for part in np.array_split(values, min(_BUCKETS, len(values))) if len(part)
    ]
    return [Segment(np.concatenate(columns).T[None].astype(np.float32), start_s, end_s, series.notes)]


def loudness(source: Source, config: None, limits: Limits, plan: Plan) -> list[Segment]:
    """A sound, or a video with a sound track -> one segment with views (1, `_BARS`) float32: the greatest amplitudes in
    turn.

    `source.hints.start_s` and `end_s` confine the recording. Raises MediaError.
    """
    (segment,) = audio.read(source, _LOUDNESS, limits, "whole")
    parts = np.array_split(np.abs(segment.views[0]), _BARS)
    peaks = np.array([part.max(initial=0.0) for part in parts], np.float32)
    return [Segment(peaks[None], segment.start_s, segment.end_s, segment.notes)]


def sound_picture(segment: Segment) -> str:
    """A segment of `loudness` -> an SVG of bars, the loudest of which has the full height."""
    peaks = segment.views[0] / max(float(segment.views[0].max()), 1e-6)
    bars = "".join(f"M{5 * place + 2.5} {50 - 46 * peak:.1f}V{50 + 46 * peak:.1f}" for place, peak in enumerate(peaks))
    return f'<svg class="wave" viewBox="0 0 {5 * len(peaks)} 100" aria-hidden="true"><path d="{bars}"/></svg>'


def depth_picture(segment: Segment) -> ColourMap:
    """A segment of `depth_map` -> its picture, in which near is bright."""
    low, high = _range(segment.views[0])
    return ColourMap(
        _address(segment.views[0], high, low, "viridis"), f"{low:.3g} m", f"{high:.3g} m", _gradient("viridis", True)
    )


def thermal_picture(segment: Segment, unit: str | None) -> ColourMap:
    """A segment of `thermal_map`, and the unit in the file's hints -> its picture, in which warm is bright."""
    values = segment.views[0]
    if unit in ("kelvin", "centikelvin"):
        values = (values / 100 if unit == "centikelvin" else values) - np.float32(273.15)
    low, high = _range(values)
    label = "°C" if unit else "(no unit)"
    return ColourMap(
        _address(values, low, high, "inferno"), f"{low:.3g} {label}", f"{high:.3g} {label}", _gradient("inferno", False)
    )


def motion_picture(segment: Segment) -> str:
    """A segment of `motion` -> an SVG: acceleration in g above rotation in degrees a second (left out where it
    is 0).
    """
    acceleration = segment.views[0][:3] / _STANDARD_GRAVITY
    rotation = np.degrees(segment.views[0][3:])
    panels = [("acceleration", "g", acceleration)]
    if rotation.any():
        panels.append(("rotation", "deg/s", rotation))
    span = (segment.start_s or 0.0, segment.end_s or 0.0)
    label = f"Motion from {span[0]:.1f} to {span[1]:.1f} s: " + ", ".join(
        f"{name} {_short(values.min())} to {_short(values.max())} {unit}" for name, unit, values in panels
    )
    height = 108
    body = "".join(_panel(*panel, top=number * height) for number, panel in enumerate(panels))
    bottom = len(panels) * height
    axis = (
        f'<text x="46" y="{bottom + 12}">{span[0]:.1f} s</text>'
        f'<text x="316" y="{bottom + 12}" text-anchor="end">{span[1]:.1f} s</text>'
        + "".join(
            f'<text class="axis-{name}" x="{160 + 18 * place}" y="{bottom + 12}">{name}</text>'
            for place, name in enumerate("xyz")
        )
    )
    heading = f'<svg class="motion" viewBox="0 0 320 {bottom + 18}" role="img" aria-label="{escape(label)}">'
    return f"{heading}{body}{axis}</svg>"


def _short(value: float) -> str:
    """A number as a short text: 1.23 and 123, never 1.2e+02."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def _panel(name: str, unit: str, values: np.ndarray, top: int) -> str:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        low, high = low - 1, high + 1
    xs = np.linspace(46, 316, values.shape[1])
    lines = ""
    for axis, row in zip("xyz", values, strict=True):
        ys = top + 98 - 90 * (row - low) / (high - low)
        points = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
        lines += f'<path class="axis-{axis}" d="M{points}"/>'
    zero = ""
    if low < 0 < high:
        y = top + 98 - 90 * (0 - low) / (high - low)
        zero = f'<path class="zero" d="M46 {y:.1f}H316"/>'
    return (
        f'<path class="frame" d="M46 {top + 8}V{top + 98}H316"/>{zero}{lines}'
        f'<text x="42" y="{top + 15}" text-anchor="end">{_short(high)}</text>'
        f'<text x="42" y="{top + 98}" text-anchor="end">{_short(low)}</text>'
        f'<text x="42" y="{top + 57}" text-anchor="end">{unit}</text>'
    )


def _small(values: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return np.array(picture)


def _range(values: np.ndarray) -> tuple[float, float]:
    """The range that the colours span; a few outliers among the pixels do not extend it."""
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _colours(name: str) -> np.ndarray:
    """A colour map, (256, 3) uint8."""
    stops = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in _STOPS[name].split()])
    places = np.linspace(0, 255, len(stops))
    return np.stack([np.interp(np.arange(256), places, stops[:, i]) for i in range(3)], 1).astype(np.uint8)


def _address(values: np.ndarray, dark: float, bright: float, name: str) -> str:
    shares = np.clip((values - dark) / (bright - dark), 0, 1)
    out = io.BytesIO()
    Image.fromarray(_colours(name)[(shares * 255).astype(np.uint8)]).save(out, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _gradient(name: str, backwards: bool) -> str:
    stops = [f"#{stop}" for stop in _STOPS[name].split()]
    return f"linear-gradient(to right, {', '.join(reversed(stops) if backwards else stops)})"
