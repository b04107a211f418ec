"""Small pictures with a scale, as SVG: plots of sound and motion, and colour maps of depth and thermal images.

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
_LINES = 6
_STYLE = """
.sheet { fill: #fff } path { fill: none; stroke-width: 1.3 }
.bars { stroke: #a85a00; stroke-width: 3; stroke-linecap: round }
text { font: 12px system-ui, sans-serif; fill: #5d6068 }
.frame, .zero { stroke: #dfdfd9 } .zero { stroke-dasharray: 3 3 }
.axis-x { stroke: #b8342b } .axis-y { stroke: #4d7a12 } .axis-z { stroke: #1f6fb8 }
text.axis-x { fill: #b8342b; stroke: none } text.axis-y { fill: #4d7a12; stroke: none }
text.axis-z { fill: #1f6fb8; stroke: none }
@media (prefers-color-scheme: dark) {
  .sheet { fill: #191b20 } .bars { stroke: #f0a650 } text { fill: #a2a6b0 } .frame, .zero { stroke: #3a3e48 }
  .axis-x { stroke: #ff8a7d } .axis-y { stroke: #a5cf62 } .axis-z { stroke: #6cb2f2 }
  text.axis-x { fill: #ff8a7d } text.axis-y { fill: #a5cf62 } text.axis-z { fill: #6cb2f2 }
}
"""
_STANDARD_GRAVITY = 9.80665  # m/s2 in one g


@dataclass(frozen=True)
class ColourMap:
    """A picture as a `data:` address, and the meaning of its colours: `low` and `high` are labels with their unit.

    `stops` are colours of the scale, from `low` to `high`, each with its place from 0 to 1.
    """

    address: str
    low: str
    high: str
    stops: tuple[tuple[float, str], ...]


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


def sound_picture(segment: Segment) -> tuple[str, str]:
    """A segment of `loudness` -> an SVG of bars, the loudest of which has the full height; and its description."""
    peaks = segment.views[0] / max(float(segment.views[0].max()), 1e-6)
    bars = "".join(f"M{5 * x + 2.5} {160 - 120 * peak:.1f}V{160 + 120 * peak:.1f}" for x, peak in enumerate(peaks))
    return document(f'<path class="bars" d="{bars}"/>', "The loudness of the sound over time")


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


def colour_picture(colours: ColourMap, reading: str) -> tuple[str, str]:
    """A colour map, and the meaning of bright and dark -> an SVG with its scale, and its description."""
    label = f"{colours.low} to {colours.high}, {reading}"
    stops = "".join(f'<stop offset="{part:.3f}" stop-color="{colour}"/>' for part, colour in colours.stops)
    body = (
        f'<defs><linearGradient id="scale">{stops}</linearGradient></defs>'
        f'<image href="{colours.address}" width="320" height="286" preserveAspectRatio="xMidYMid slice"/>'
        f'<text x="12" y="308">{escape(colours.low)}</text><rect x="96" y="298" width="128" height="10" rx="5" '
        f'fill="url(#scale)"/><text x="308" y="308" text-anchor="end">{escape(colours.high)}</text>'
    )
    return document(body, label)


def lines_picture(values: np.ndarray) -> tuple[str, str]:
    """Numbers (..., n) of any recording -> an SVG of up to `_LINES` of their lines, each from its least to its
    greatest value; and its description.
    """
    rows = np.nan_to_num(np.asarray(values, np.float64).reshape(-1, values.shape[-1])[:_LINES])
    body = ""
    for place, row in enumerate(rows):
        row = np.array([part.mean() for part in np.array_split(row, min(len(row), 2 * _BUCKETS)) if len(part)])
        low, spread = float(row.min()), max(float(np.ptp(row)), 1e-9)
        height, top = 288 / len(rows), 16 + place * 288 / len(rows)
        ys = top + height * 0.9 * (1 - (row - low) / spread)
        points = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(np.linspace(16, 304, len(ys)), ys, strict=True))
        body += f'<path class="axis-{"xyz"[place % 3]}" d="M{points}"/>'
    return document(body, "The numbers of the recording over time")


def motion_picture(segment: Segment) -> tuple[str, str]:
    """A segment of `motion` -> an SVG: acceleration in g above rotation in degrees a second (left out where it
    is 0); and its description.
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
    height = 284 // len(panels)
    body = "".join(_panel(*panel, top=8 + number * height, height=height) for number, panel in enumerate(panels))
    axis = f'<text x="50" y="310">{span[0]:.1f} s</text><text x="312" y="310" text-anchor="end">{span[1]:.1f} s</text>'
    names = "".join(
        f'<text class="axis-{name}" x="{160 + 18 * x}" y="310">{name}</text>' for x, name in enumerate("xyz")
    )
    return document(body + axis + names, label)


def document(body: str, label: str) -> tuple[str, str]:
    """The inside of a picture of 320 x 320, and its description -> an SVG that a page can show as an image, and the
    description.
    """
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 320" role="img"><title>{escape(label)}</title>'
    return f'{head}<style>{_STYLE}</style><rect class="sheet" width="320" height="320"/>{body}</svg>', label


def _short(value: float) -> str:
    """A number as a short text: 1.23 and 123, never 1.2e+02."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def _panel(name: str, unit: str, values: np.ndarray, top: int, height: int) -> str:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        low, high = low - 1, high + 1
    tall, bottom = height - 16, top + height - 8
    xs = np.linspace(50, 312, values.shape[1])
    lines = ""
    for axis, row in zip("xyz", values, strict=True):
        ys = bottom - tall * (row - low) / (high - low)
        points = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
        lines += f'<path class="axis-{axis}" d="M{points}"/>'
    zero = ""
    if low < 0 < high:
        y = bottom - tall * (0 - low) / (high - low)
        zero = f'<path class="zero" d="M50 {y:.1f}H312"/>'
    return (
        f'<path class="frame" d="M50 {top + 8}V{bottom}H312"/>{zero}{lines}'
        f'<text x="46" y="{top + 17}" text-anchor="end">{_short(high)}</text>'
        f'<text x="46" y="{bottom}" text-anchor="end">{_short(low)}</text>'
        f'<text x="46" y="{(top + bottom) // 2 + 8}" text-anchor="end">{unit}</text>'
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


def _gradient(name: str, backwards: bool) -> tuple[tuple[float, str], ...]:
    """The stops of a scale, each with its place from 0 to 1."""
    stops = [f"#{stop}" for stop in _STOPS[name].split()]
    return tuple((place / (len(stops) - 1), stop) for place, stop in enumerate(reversed(stops) if backwards else stops))
