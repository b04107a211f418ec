"""Recordings of several sensors with one clock -> manifests of paired events: a picture and the motion around it.

    build("walk.mcap", "walk.jsonl", anchor="/camera", sensors=["/imu", "/depth"], window_s=2.0)

Containers are opened here, by libraries in Python, as the downloads of data sets are: they are recordings of one's
own. The pictures in them are decoded by sandboxed workers.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_manifests.logs.alignment import Offset, find_offset
from data_manifests.logs.containers import SUFFIXES, Log, LogError, Message, Picture, named_by_time
from preprocess import manifest
from preprocess.decoding.pool import DecodePool
from preprocess.readers import image
from preprocess.readers.imu import CHANNELS
from preprocess.source import Limits, MediaError, Segment, Source

__all__ = ["LogError", "LogReport", "Session", "build"]

_SMALL = image.ImageConfig(size=32, resize=32)
"""Pictures are compared at this size: enough to see a turn, and little noise."""
_WAITING = 16
"""Pictures that are decoded ahead; more would only take memory."""
_LEAST_SHARE = 0.5
"""Of a window that must have motion."""
_NEARLY = 0.05
"""Of a window that the last one may lack."""
_CLOCKS_APART_S = 3600.0
"""Seconds by which the clocks of two sensors may differ, as far as the recorder's clock shows, and still be taken as
one clock."""
_TESTED = 5
"""One of so many sessions is for testing."""


@dataclass(frozen=True)
class Session:
    """What became of one recording: `offset` of its motion, the number of events, and notes on what was assumed."""

    name: str
    events: int
    offset: Offset
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LogReport:
    """The manifests that were written, the number of events by split ('' where there is one), and the sessions."""

    written: tuple[Path, ...]
    events: dict[str, int]
    sessions: tuple[Session, ...]


@dataclass
class _Track:
    """The times of the anchor's pictures, what changed between them, and the motion, all in seconds of one clock."""

    frame_s: np.ndarray
    change: np.ndarray
    motion_s: np.ndarray
    motion: np.ndarray
    is_stamped: bool
    notes: list[str]


def build(
    session: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    anchor: str,
    sensors: Sequence[str],
    window_s: float = 2.0,
    max_offset_s: float = 2.0,
) -> LogReport:
    """One recording, or a folder of several -> manifests of events, and their media in the folder `OUT-files`.

    Each event has the anchor's picture nearest to the middle of a window, the motion of that window, and the depth map
    nearest to the picture. The offset between motion and pictures is looked for and taken out (see `find_offset`).
    Several recordings are split by recording: `OUT-train.jsonl` and `OUT-test.jsonl`.

    Args:
        session: An `.mcap`, `.bag`, `.db3` or `.ulg` file, the folder of a ROS 2 bag, or a folder of several of these.
        out: The manifest to write; `.jsonl` may be left out.
        anchor: A topic of pictures, or a folder of pictures called after their times.
        sensors: Topics of motion (one) and of depth.
        window_s: Length of an event, in seconds.
        max_offset_s: The largest offset that is tried, in seconds; 0 takes the clocks as they are.

    Raises LogError for what cannot be used, and where there is not one event.
    """
    if not (window_s > 0 and max_offset_s >= 0):
        raise LogError(
            f"expected a window above 0 s and an offset of 0 s or more, got {window_s:g} and {max_offset_s:g}"
        )
    session, out = Path(session), Path(out)
    out = out.with_suffix("") if out.suffix == ".jsonl" else out
    files = out.with_name(f"{out.name}-files")
    paths = _sessions(session)
    events: dict[str, list[dict[str, Any]]] = {}
    sessions = []
    with DecodePool() as pool:
        for path in paths:
            found, aligned = _session(path, files, pool, anchor, sensors, window_s, max_offset_s)
            sessions.append(aligned)
            events.setdefault(_split_of(path.stem, paths), []).extend(found)
    if not any(events.values()):
        raise LogError(f"{session}: not one window of {window_s:g} s has a picture and motion")
    written = []
    for split, entries in sorted(events.items()):
        path = out.with_name(f"{out.name}-{split}.jsonl" if split else f"{out.name}.jsonl")
        about = f"windows of {window_s:g} s; " + "; ".join(f"{one.name}: {one.offset}" for one in sessions)
        header = {"name": path.stem, "root": files.name, "license": "unknown", "about": about}
        manifest.write(path, header, entries)
        written.append(path)
    return LogReport(
        tuple(written), {split: len(entries) for split, entries in sorted(events.items())}, tuple(sessions)
    )


def _sessions(path: Path) -> list[Path]:
    if not path.is_dir() or (path / "metadata.yaml").is_file():
        return [path]
    found = [one for one in sorted(path.iterdir()) if one.suffix in SUFFIXES or (one / "metadata.yaml").is_file()]
    if not found:
        raise LogError(f"{path}: expected a recording ({', '.join(SUFFIXES)}, or the folder of a ROS 2 bag) or several")
    return found


def _split_of(name: str, paths: Sequence[Path]) -> str:
    """Whole recordings go to one split: neighbouring windows are too alike. The order of their hashes is by chance."""
    if len(paths) < 2:
        return ""
    order = sorted((one.stem for one in paths), key=lambda stem: hashlib.sha256(stem.encode()).digest())
    return "test" if order.index(name) < max(1, len(order) // _TESTED) else "train"


def _session(
    path: Path,
    files: Path,
    pool: DecodePool,
    anchor: str,
    sensors: Sequence[str],
    window_s: float,
    max_offset_s: float,
) -> tuple[list[dict[str, Any]], Session]:
    log = Log(path)
    folder = Path(anchor) if anchor not in log.topics and Path(anchor).is_dir() else None
    track = _first_look(log, folder, anchor, sensors, pool)
    if max_offset_s:
        rotation = track.motion[:, 3:]
        offset = find_offset(track.motion_s, rotation, track.frame_s, track.change, max_offset_s)
    else:
        offset = Offset(0.0, 0.0, False)
    motion_s = track.motion_s + offset.seconds
    place = files / path.stem
    place.mkdir(parents=True, exist_ok=True)
    rows = np.column_stack([motion_s - motion_s[0], track.motion])
    titles = ",".join(["time [s]", *(f"{name} [{'m/s2' if i < 3 else 'rad/s'}]" for i, name in enumerate(CHANNELS))])
    np.savetxt(place / "imu.csv", rows, fmt="%.9g", delimiter=",", header=titles, comments="")
    wanted = dict(_windows(track.frame_s, motion_s, window_s))
    pictures = _write_pictures(log, folder, anchor, sensors, wanted, place, track)
    events = []
    for number, (start_s, end_s) in wanted.items():
        if number not in pictures:
            continue
        media = {name: {"path": f"{path.stem}/{file}", **hints} for name, file, hints in pictures[number]}
        motion = {"path": f"{path.stem}/imu.csv", "start_s": round(start_s, 6), "end_s": round(end_s, 6)}
        events.append({"id": f"{path.stem}-{number}", **media, "imu": motion, "group": path.stem})
    return events, Session(path.stem, len(events), offset, tuple(track.notes))


def _first_look(log: Log, folder: Path | None, anchor: str, sensors: Sequence[str], pool: DecodePool) -> _Track:
    """Reads all motion, and all pictures of the anchor once, which are not kept."""
    received: dict[str, list[float]] = {"frame": [], "motion": []}
    stamped: dict[str, list[float]] = {"frame": [], "motion": []}
    motion: list[np.ndarray] = []
    change = _Change(pool)
    for message in log.messages(*({*sensors} if folder else {anchor, *sensors})):
        if message.motion is None and message.topic != anchor:
            continue
        kind = "frame" if message.motion is None else "motion"
        received[kind].append(message.received_s)
        stamped[kind].append(message.stamped_s)
        if message.motion is not None:
            motion.append(message.motion)
        elif message.picture is not None:
            change.add(message.picture)
    if folder is not None:
        for second, path in named_by_time(folder):
            stamped["frame"].append(second)
            change.add(Picture(path.read_bytes()))
        received["frame"] = stamped["frame"]
    if not motion or not received["frame"]:
        what = "motion (sensor_msgs/Imu) among --sensor" if not motion else "pictures at --anchor"
        raise LogError(f"{log.path}: has no {what}; its topics: {', '.join(log.topics) or 'none'}")
    is_stamped, notes = _clock(received, stamped)
    times = stamped if is_stamped else received
    motion_s = np.array(times["motion"])
    order = np.unique(motion_s, return_index=True)[1]
    frame_s, changed = np.array(times["frame"]), change.finish()
    in_order = np.argsort(frame_s, kind="stable")
    if (np.diff(in_order) != 1).any():
        notes.append("its pictures are out of order in time: the offset was not looked for")
        frame_s, changed = frame_s[in_order], np.zeros(len(frame_s) - 1)
    notes += change.notes
    return _Track(frame_s, changed, motion_s[order], np.stack(motion)[order], is_stamped, notes)


def _clock(received: dict[str, list[float]], stamped: dict[str, list[float]]) -> tuple[bool, list[str]]:
    """Whether all times are those of the sensors: only if every topic has them, and by one clock."""
    firsts = {kind: (received[kind][0], stamped[kind][0]) for kind in received}
    if any(not all(stamped[kind]) for kind in stamped):
        return False, ["not every message has a time of its sensor: all times are those of the recorder"]
    if abs((firsts["frame"][1] - firsts["motion"][1]) - (firsts["frame"][0] - firsts["motion"][0])) > _CLOCKS_APART_S:
        return False, ["the clocks of its sensors are more than an hour apart: all times are those of the recorder"]
    return True, []


class _Change:
    """How much each picture differs from the one before; decoded by workers, a few at a time."""

    def __init__(self, pool: DecodePool) -> None:
        self._pool = pool
        self._waiting: list[Future[list[Segment]]] = []
        self._last: np.ndarray | None = None
        self._found: list[float] = []
        self._broken = 0

    def add(self, picture: Picture) -> None:
        """The next picture."""
        content = picture.encoded if picture.pixels is None else _as_uint8(picture.pixels)
        self._waiting.append(self._pool.submit(image.read, Source(content, "picture"), _SMALL, Limits(), "whole"))
        if len(self._waiting) > _WAITING:
            self._take()

    def finish(self) -> np.ndarray:
        """(N - 1,) mean absolute differences, of N pictures."""
        while self._waiting:
            self._take()
        return np.array(self._found[1:])

    @property
    def notes(self) -> list[str]:
        """What could not be decoded."""
        return [f"{self._broken:,} pictures could not be decoded"] if self._broken else []

    def _take(self) -> None:
        try:
            (segment,) = self._waiting.pop(0).result()
        except MediaError:
            self._broken += 1
            self._found.append(0.0)
            return
        grey = segment.views[0].astype(np.float32).mean(axis=2)
        self._found.append(0.0 if self._last is None else float(np.abs(grey - self._last).mean()))
        self._last = grey


def _as_uint8(pixels: np.ndarray) -> np.ndarray:
    """Pixels or depth -> something to compare: depth as grey, from the nearest to the farthest."""
    if pixels.dtype == np.uint8:
        return pixels
    values = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    return (values / max(float(values.max()), 1e-6) * 255).clip(0, 255).astype(np.uint8)


def _windows(frame_s: np.ndarray, motion_s: np.ndarray, window_s: float) -> Iterator[tuple[int, tuple[float, float]]]:
    """(the picture nearest to the middle of a window, where its motion begins and ends in the file of motion)."""
    period_s, frames_s = (float(np.median(np.diff(times))) if len(times) > 1 else 0.0 for times in (motion_s, frame_s))
    begin, end = max(frame_s[0], motion_s[0]), min(frame_s[-1] + frames_s, motion_s[-1] + period_s)
    for number in range(int((end - begin) / window_s + _NEARLY)):
        start_s = begin + number * window_s
        middle = int(np.argmin(np.abs(frame_s - (start_s + window_s / 2))))
        inside = int(((motion_s >= start_s) & (motion_s < start_s + window_s)).sum())
        if (
            abs(frame_s[middle] - (start_s + window_s / 2)) > window_s / 2
            or inside * period_s < _LEAST_SHARE * window_s
        ):
            continue
        yield middle, (start_s - motion_s[0], start_s + window_s - motion_s[0])


def _write_pictures(
    log: Log,
    folder: Path | None,
    anchor: str,
    sensors: Sequence[str],
    wanted: dict[int, tuple[float, float]],
    place: Path,
    track: _Track,
) -> dict[int, list[tuple[str, str, dict[str, Any]]]]:
    """Writes the wanted pictures, and the depth nearest to each -> what to name in their events."""
    found: dict[int, list[tuple[str, str, dict[str, Any]]]] = {}
    moments = {number: float(track.frame_s[number]) for number in wanted}
    period_s = float(np.median(np.diff(track.frame_s))) if len(track.frame_s) > 1 else 1.0
    nearest: dict[int, tuple[float, Picture]] = {}

    def keep(number: int, picture: Picture) -> None:
        name, hints = _write(picture, place / f"{number:06d}")
        found.setdefault(number, []).insert(0, ("depth" if picture.is_depth else "image", name, hints))

    if folder is not None:
        for number, (_, path) in enumerate(named_by_time(folder)):
            if number in wanted:
                keep(number, Picture(path.read_bytes()))
    by_time = {second: number for number, second in moments.items()}
    depth = [topic for topic in sensors if not log.topics[topic].endswith("/Imu")]
    topics = depth if folder is not None else [anchor, *depth]
    for message in log.messages(*topics) if topics else ():
        second = _time(message, track)
        if message.picture is None:
            continue
        if message.topic == anchor and second in by_time:
            keep(by_time.pop(second), message.picture)
        elif message.topic != anchor and moments:
            number = min(moments, key=lambda one: abs(moments[one] - second))
            away = abs(moments[number] - second)
            if away <= period_s and (number not in nearest or away < nearest[number][0]):
                nearest[number] = (away, message.picture)
    for number, (_, picture) in nearest.items():
        if number in found:
            name, hints = _write(picture, place / f"{number:06d}-depth")
            found[number].append(("depth" if picture.is_depth else "image", name, hints))
    return found


def _time(message: Message, track: _Track) -> float:
    return message.stamped_s if track.is_stamped else message.received_s


def _write(picture: Picture, base: Path) -> tuple[str, dict[str, Any]]:
    """Writes a picture -> its file's name and hints. Encoded ones stay as they are, raw ones lose nothing."""
    if picture.pixels is None:
        content = picture.encoded or b""
        path = base.with_suffix(".png" if content.startswith(b"\x89PNG") else ".jpg")
        path.write_bytes(content)
        return path.name, {}
    if picture.pixels.dtype == np.float32:
        path = base.with_suffix(".npy")
        np.save(path, picture.pixels)
        return path.name, {"unit": "m"}
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "PNG")
    path = base.with_suffix(".png")
    path.write_bytes(buffer.getvalue())
    return path.name, {"unit": "mm"} if picture.is_depth else {}
