"""Ego4D: first-person video with narrations, part of it with an IMU (Grauman et al., 2022)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_manifests import Builder, BuildError, Download, Entry, Split, is_filled
from data_manifests.shared.templates import CLIP_IMAGENET
from preprocess.extras import needs
from preprocess.readers.imu import CHANNELS

_WINDOW_S = 5.0  # around a narration: ImageBind, app. B
_LEAST_S = 4.5  # of a window that must be covered by samples
_NARRATIONS = ("v2/annotations/narration.json", "v2/annotations/all_narrations_redacted.json")
"""Names under which Ego4D has published its narrations, the newer one first."""
_VIDEOS = ("v2/video_540ss", "v2/full_scale")
"""Folders of the films, the smaller ones first: no encoder sees more than 540 pixels."""
_COLUMNS = ("accl_x", "accl_y", "accl_z", "gyro_x", "gyro_y", "gyro_z")
"""Columns of an IMU table in the order of `preprocess.readers.imu.units.CHANNELS`."""
_TIME = "canonical_timestamp_ms"
"""The column of milliseconds on the clock of the film, so that motion and film need no alignment."""


def splits(download: Download) -> Iterator[Split]:
    """One manifest: every narration with an IMU around it, as IMU + text (+ video where there is the file).

    Samples within 2.5 s of a narration are written as parquet, one file a narration: a whole recording is too large to
    be read for each. Labels are the scenarios of the video, its uid is the group; there is no official split.
    """
    narrations = next((name for name in _NARRATIONS if is_filled(download.path / name)), None)
    if narrations is None:
        download.lacks("annotation", " or ".join(_NARRATIONS))
        return
    table = download.json(narrations)
    videos = table.get("videos", table) if isinstance(table, dict) else None
    if not isinstance(videos, dict):
        raise BuildError(f"{narrations}: expected an object with one entry a video uid")
    scenarios: dict[str, list[str]] = {}
    if download.has("ego4d.json", "annotation"):
        try:
            scenarios = {video["video_uid"]: video["scenarios"] for video in download.json("ego4d.json")["videos"]}
        except (KeyError, TypeError) as error:
            raise BuildError(
                f"ego4d.json: expected `videos` with `video_uid` and `scenarios`, without {error}"
            ) from None
    classes = sorted({name for names in scenarios.values() for name in names})

    def events() -> Iterator[Entry]:
        for uid, passes in sorted(videos.items()):
            yield from _video_events(download, uid, passes, scenarios.get(uid, []))

    yield Split("", events(), classes, CLIP_IMAGENET, base=download.common)


def _video_events(download: Download, uid: str, passes: Any, labels: list[str]) -> Iterator[Entry]:
    narrated = [
        (f"{name.removeprefix('narration_')}-{number:05d}", entry)
        for name in ("narration_pass_1", "narration_pass_2")
        for number, entry in enumerate(passes.get(name, {}).get("narrations", []))
    ]
    path = f"v2/imu/{uid}.csv"
    if not narrated or not download.has(path, "IMU (most videos were recorded without)"):
        return
    try:
        time_ms, values = _samples(download.path / path)
    except (ValueError, KeyError) as error:
        download.lacks("readable IMU", f"{path}: {error}")
        return
    video = next((f"{folder}/{uid}.mp4" for folder in _VIDEOS if is_filled(download.path / folder / f"{uid}.mp4")), "")
    if not video:
        download.lacks("video", f"{uid}.mp4")
    for name, entry in narrated:
        text = sentence(str(entry.get("narration_text", "")))
        if not text:
            continue
        start_s = max(0.0, float(entry["timestamp_sec"]) - _WINDOW_S / 2)
        first, last = np.searchsorted(time_ms, [start_s * 1000, (start_s + _WINDOW_S) * 1000])
        if last - first < 2 or time_ms[last - 1] - time_ms[first] < _LEAST_S * 1000:
            download.lacks("IMU around a narration", f"{uid} {start_s:.1f} s")
            continue
        made = download.made / "imu" / uid / f"{name}.parquet"
        made.parent.mkdir(parents=True, exist_ok=True)
        _write(made, time_ms[first:last], values[first:last])
        event: Entry = {
            "id": f"{uid}-{name}",
            "imu": {"path": _below(made, download.common), "acceleration_unit": "m/s2"},
            "text": text,
        }
        if video:
            place = _below(download.path / video, download.common)
            event["video"] = {"path": place, "start_s": round(start_s, 3), "end_s": round(start_s + _WINDOW_S, 3)}
        if labels:
            event["labels"] = labels
        yield event | {"group": uid}


def sentence(narration: str) -> str:
    """'#C C picks a knife' -> 'the camera wearer picks a knife'; '' where the narrator was not sure.

    In Ego4D's notation #C and #O say whose action it is, C is the camera wearer, X, Y and so on are other people.
    """
    if "#unsure" in narration.lower():
        return ""
    words = re.sub(r"#\w+", " ", narration)
    return " ".join(re.sub(r"\bC\b", "the camera wearer", words).split())


def _samples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An IMU file -> times (T,) in ms of the video, increasing, and values (T, 6); rows with an empty field left out.

    Times may be empty, or out of order (Ego4D's page on IMU). Raises KeyError, ValueError for another layout.
    """
    with needs("data", "a table of Ego4D"):
        from pyarrow import csv  # slow to import

    types = dict.fromkeys((_TIME, *_COLUMNS), "float64")
    table = csv.read_csv(path, convert_options=csv.ConvertOptions(include_columns=list(types), column_types=types))
    columns = [table[name].to_numpy() for name in types]
    rows = np.column_stack(columns)
    rows = rows[np.isfinite(rows).all(axis=1)]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return rows[:, 0], rows[:, 1:]


def _write(path: Path, time_ms: np.ndarray, values: np.ndarray) -> None:
    with needs("data", "a table of Ego4D"):
        import pyarrow as pa  # slow to import
        from pyarrow import parquet

    # Ego4D does not state the units. GoPro cameras, which recorded most of it, write m/s2 and rad/s.
    columns: Mapping[str, np.ndarray] = {"time [ms]": time_ms - time_ms[0]} | {
        name: values[:, channel].astype(np.float32) for channel, name in enumerate(CHANNELS)
    }
    parquet.write_table(pa.table(columns), path)


def _below(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


BUILDER = Builder(
    title="Ego4D, narrations with IMU.",
    license="Ego4D licence agreement, signed personally",
    obtain="the Ego4D project page (ego4d-data.org): sign the licence, then its command-line tool with the data sets "
    "annotations, imu, and video_540ss or full_scale",
    layout="the tool's output folder: ego4d.json, v2/annotations/narration.json, v2/imu/UID.csv, "
    "v2/video_540ss/UID.mp4 (or v2/full_scale)",
    splits=splits,
)
