"""Motion logs as phone apps, sensors and data sets write them: all of them mean the same motion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import Table, parquet

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here, with_parts
from preprocess.readers.imu import ImuConfig, ImuSeries, read, read_imu
from preprocess.readers.imu.layouts import layouts, recording_of
from preprocess.source import Limits, MediaError, Source
from tests.cases.motion import (
    EPOCH_S,
    LOGS,
    PLAIN,
    G,
    clock,
    milli,
    motion,
    plotjuggler,
    sensor_logger,
    table,
)
from tests.cases.motion_kinds import KINDS, WITHOUT_ROTATION

LIMITS = Limits()
RATES = (50.0, 200.0)


def read_log(folder: Path, files: dict[str, str | bytes]) -> ImuSeries:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    path = folder / next(iter(files))
    return read_imu(with_parts(read, Source(path, str(path))), LIMITS)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("log", LOGS)
def test_every_log_means_the_same_motion(tmp_path: Path, log: str, rate_hz: float) -> None:
    time_s = np.arange(round(6 * rate_hz)) / rate_hz
    series = read_log(tmp_path, LOGS[log](time_s, motion(time_s)))
    np.testing.assert_allclose(series.time_s, time_s, atol=1e-3)
    inner = slice(1, -1)  # what another sensor has measured begins and ends at other moments
    np.testing.assert_allclose(series.values[inner], motion(time_s)[inner], atol=3e-3)
    assert ("without gravity" in str(series.notes)) == (log in GRAVITY_REMOVED)


GRAVITY_REMOVED = ("Sensor Logger", "phyphox, linear", "Physics Toolbox, linear accelerometer")


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("kind", [*KINDS, *WITHOUT_ROTATION])
def test_other_writers_mean_the_same_motion(tmp_path: Path, kind: str, rate_hz: float) -> None:
    time_s = np.arange(int(4 * rate_hz)) / rate_hz
    series = read_log(tmp_path, (KINDS | WITHOUT_ROTATION)[kind](time_s, motion(time_s)))
    at = series.time_s[(series.time_s > 0.1) & (series.time_s < 3.8)]
    got = np.stack([np.interp(at, series.time_s, series.values[:, axis]) for axis in range(6)], axis=1)
    wanted = motion(at) * ([1] * 3 + [kind in KINDS] * 3)
    assert np.abs(got - wanted).max() < 0.05


@pytest.mark.parametrize("counts", [16_384, 4_096, 256])
def test_counts_of_a_sensor_are_refused(tmp_path: Path, counts: int) -> None:
    time_s = np.arange(400) / 100
    with pytest.raises(MediaError, match="counts of a sensor"):
        read_log(tmp_path, {"log.csv": table(PLAIN, [time_s, *(motion(time_s) / G * counts).T])})


def test_a_header_that_is_not_known_is_no_row_of_another_layout(tmp_path: Path) -> None:
    time_s = np.arange(400) / 100
    text = clock(time_s, lambda at: at.strftime("%Y-%m-%d %H:%M:%S.") + milli(at))
    with pytest.raises(MediaError, match="among its columns"):
        read_log(tmp_path, {"log.csv": table("Stamp,Foo,Bar,Baz", [text, *motion(time_s)[:, :3].T])})


def test_every_layout_is_tried() -> None:
    written = {*LOGS, *KINDS, *WITHOUT_ROTATION, "Core Motion", "PX4", "WISDM"}
    written |= {"Axivity without a header or gyroscope", "ROS, rostopic"}
    assert [row.name for row in layouts() if not any(log.startswith(row.name) for log in written)] == []


def test_the_page_on_motion_logs_has_every_layout() -> None:
    page = (Path(__file__).parents[3] / "docs/pages/reference/motion-logs.md").read_text()
    assert [row.name for row in layouts() if f"| {row.name} | {row.about} |" not in page] == []


@pytest.mark.parametrize(("log", "note"), [
    ("Sensor Logger", "9.81 m/s2 were added along z"),
    ("Sensor Logger", "joined with Gyroscope.csv"),
    ("Sensor Logger with gravity", "gravity, recorded apart from the acceleration, was added"),
    ("Physics Toolbox", "taken as g, as Physics Toolbox writes it"),
    ("Xsens, no times", "it has no time column: 50 Hz, as its first lines say"),
    ("any, units by magnitude", "lasting magnitude of 1.0"),
    ("any, units by magnitude", "taken as deg/s"),
    ("any, UTF-16", "its text is UTF-16"),
    ("any, Latin-1", "its text is Windows-1252 or Latin-1"),
])  # fmt: skip
def test_what_was_assumed_is_said(tmp_path: Path, log: str, note: str) -> None:
    time_s = np.arange(300) / 50
    notes = read_log(tmp_path, LOGS[log](time_s, motion(time_s))).notes
    assert any(note in entry for entry in notes), notes


@pytest.mark.parametrize(("name", "fields"), [
    ("wisdm.csv", lambda t, m: [[33] * len(t), ["Jogging"] * len(t), [49105962326000 + round(s * 1e9) for s in t]]),
    ("ax3.csv", lambda t, m: [clock(t, lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.") + milli(moment))]),
])  # fmt: skip
def test_rows_without_a_header_or_a_gyroscope(tmp_path: Path, name: str, fields: Callable[..., list]) -> None:
    time_s = np.arange(300) / 20
    values = motion(time_s)[:, :3] / (1 if name == "wisdm.csv" else G)
    content = table("", [*fields(time_s, values), *values.T], close=";" if name == "wisdm.csv" else "")
    series = read_log(tmp_path, {name: content})
    np.testing.assert_allclose(series.values[:, :3], motion(time_s)[:, :3], atol=1e-3)
    np.testing.assert_allclose(series.time_s, time_s, atol=1e-3)
    assert "no gyroscope: rotation set to 0" in series.notes


def test_files_of_one_recording_are_found_and_joined_in_the_sandbox(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    for name, content in sensor_logger(time_s, motion(time_s)).items():
        (tmp_path / f"Walk_{name}").write_text(str(content))
    acceleration, rotation = (str(tmp_path / f"Walk_{name}.csv") for name in ("Accelerometer", "Gyroscope"))
    assert recording_of(acceleration) == recording_of(rotation) == [acceleration, rotation]
    assert recording_of(tmp_path / "Walk.csv") == [str(tmp_path / "Walk.csv")]
    config = ImuConfig(rate_hz=50.0)
    with DecodePool(workers=1) as pool:
        views = [
            pool.submit(read, Source(Path(path), path), config, LIMITS, "whole").result()[0]
            for path in (acceleration, rotation)
        ]
    for found in views:
        np.testing.assert_allclose(found.views[0], motion(time_s)[:250].T, atol=1e-3)
    # A link, and a file that is none, are nobody's part.
    Path(rotation).rename(tmp_path / "elsewhere.csv")
    Path(rotation).symlink_to(tmp_path / "elsewhere.csv")
    assert recording_of(acceleration) == [acceleration]
    (alone,) = read_here(read, Source(Path(acceleration), acceleration), config, LIMITS, "whole")
    assert "no gyroscope: rotation set to 0" in alone.notes


def test_a_part_that_cannot_be_joined_is_said(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    files = sensor_logger(time_s, motion(time_s))
    broken = read_log(tmp_path, {**files, "Gyroscope.csv": "time,seconds_elapsed,z,y,x\n"})
    assert any("Gyroscope.csv beside it was not joined: has no rows" in note for note in broken.notes)
    late = sensor_logger(time_s + 60, motion(time_s))["Gyroscope.csv"]
    assert any("covers other times" in note for note in read_log(tmp_path, {**files, "Gyroscope.csv": late}).notes)
    (tmp_path / "Accelerometer.csv").unlink()
    with pytest.raises(MediaError, match="has no acceleration"):
        read_log(tmp_path, {"Gyroscope.csv": files["Gyroscope.csv"]})


def test_parquet_has_the_same_layouts(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    values = motion(time_s)
    stamps = (EPOCH_S * 10**9 + np.round(time_s * 1e9)).astype(np.int64)
    columns = {f"w_RS_S_{axis}": values[:, 3 + i] for i, axis in enumerate("xyz")}
    columns |= {f"a_RS_S_{axis}": values[:, i] for i, axis in enumerate("xyz")}
    path = tmp_path / "imu.parquet"
    parquet.write_table(Table.from_pydict({"timestamp": stamps, **columns}), path)
    np.testing.assert_allclose(read_imu(Source(path, str(path)), LIMITS).values, values, atol=1e-5)


def test_two_recordings_in_one_table_are_refused(tmp_path: Path) -> None:
    time_s = np.arange(300) / 50
    (content,) = plotjuggler(time_s, motion(time_s)).values()
    header, rest = str(content).split("\n", 1)
    other = header.replace("/imu/data", "/other/imu").replace("__time,", "")
    doubled = "\n".join(row + "," + row.split(",", 1)[1] for row in rest.splitlines())
    with pytest.raises(MediaError, match="both look like acc_x"):
        read_log(tmp_path, {"two.csv": f"{header},{other}\n{doubled}\n"})


def test_words_in_place_of_numbers_are_still_refused(tmp_path: Path) -> None:
    rows = "\n".join("a,b,c,d,e,f,g" for _ in range(100))
    with pytest.raises(MediaError, match="not be read as a table of numbers"):
        read_log(tmp_path, {"words.csv": f"{PLAIN}\n{rows}\n"})


def test_a_head_without_end_costs_little(tmp_path: Path) -> None:
    for content in ("# " + "x" * 10**7 + "\n1,2\n", "#\n" * 10**6, "a," * 10**6 + "\n" + "1," * 10**6 + "\n"):
        with pytest.raises(MediaError, match=r"no rows below|has no"):
            read_log(tmp_path, {"long.csv": content})
