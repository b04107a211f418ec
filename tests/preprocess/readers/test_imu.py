from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import seglearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.readers.imu import CHANNELS, ImuConfig, ImuSeries, prepare, read, read_imu, shape
from preprocess.source import Hints, Limits, MediaError, Source

CONFIG = ImuConfig()
LIMITS = Limits()
HEADER = ",".join(("time_s", *CHANNELS))


def _motion(time_s: np.ndarray) -> np.ndarray:
    """(T, 6): each channel has a frequency, a size and an offset of its own, so that none can pass for another."""
    channel = np.arange(6)
    return 9.81 * (channel == 2) + (channel + 1) * np.sin(2 * np.pi * (1 + channel / 2) * time_s[:, None] + channel)


def _csv(path: Path, time: np.ndarray, values: np.ndarray, header: str = HEADER, mark: str = ",") -> Path:
    rows = [mark.join(f"{value:.9g}" for value in row) for row in np.column_stack([time, values])]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def _read_path(path: Path, plan="whole", config=CONFIG, **hints):
    return read_here(read, Source(path, str(path), Hints(**hints)), config, LIMITS, plan)


def _read_array(values, plan="whole", config=CONFIG, rate_hz: float | None = 400.0, **hints):
    return read_here(read, Source(values, "array", Hints(rate_hz=rate_hz, **hints)), config, LIMITS, plan)


def _series(path: Path, **hints) -> ImuSeries:
    return read_imu(Source(path, str(path), Hints(**hints)), LIMITS)


def test_five_seconds_at_400_hz_pass_unchanged_and_unscrambled():
    values = _motion(np.arange(2000) / 400).astype(np.float32)
    [segment] = _read_array(values)
    assert segment.views.shape == (1, *shape(CONFIG)) == (1, 6, 2000)
    np.testing.assert_allclose(segment.views[0], values.T, atol=1e-5)
    assert (segment.start_s, segment.end_s, segment.notes) == (0.0, 5.0, ())
    # Negative control: a reshape in place of the transpose mixes the channels.
    assert np.abs(segment.views[0] - values.reshape(6, 2000)).max() > 1


def test_prepare_normalises_each_channel():
    config = ImuConfig(mean=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), std=(1.0, 2.0, 4.0, 1.0, 2.0, 4.0))
    views = np.stack([np.full((6, 2000), 7.0, dtype=np.float32), np.zeros((6, 2000), dtype=np.float32)])
    tensor = prepare(views, config)
    assert tensor.dtype == torch.float32
    assert tensor.shape == (2, 6, 2000)
    assert tensor[0, :, 0].tolist() == [6.0, 2.5, 1.0, 3.0, 1.0, 0.25]
    assert tensor[1, :, -1].tolist() == [-1.0, -1.0, -0.75, -4.0, -2.5, -1.5]
    with pytest.raises(ValueError, match=r"expected views \(K, 6, 2000\)"):
        prepare(views.transpose(0, 2, 1), config)


def test_csv_parquet_and_npy_agree(tmp_path):
    time_s = np.arange(1000) / 100
    values = _motion(time_s)
    of_csv = _csv(tmp_path / "a.csv", time_s, values)
    of_tsv = _csv(tmp_path / "a.tsv", time_s, values, HEADER.replace(",", "\t"), "\t")
    shuffled = [3, 0, 6, 2, 1, 5, 4]
    columns = np.column_stack([time_s, values])[:, shuffled]
    names = [HEADER.split(",")[i] for i in shuffled]
    of_parquet = tmp_path / "a.parquet"
    parquet.write_table(pa.table({**dict(zip(names, columns.T, strict=True)), "label": ["walk"] * 1000}), of_parquet)
    of_npy = tmp_path / "a.npy"
    np.save(of_npy, np.asfortranarray(values))
    wanted = _read_array(values, rate_hz=100.0)[0].views
    assert wanted.shape == (2, 6, 2000)
    for path in (of_csv, of_tsv, of_parquet):
        np.testing.assert_allclose(_read_path(path)[0].views, wanted, atol=1e-5)
    np.testing.assert_allclose(_read_path(of_npy, rate_hz=100.0)[0].views, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "header",
    [
        "t,ax,ay,az,gx,gy,gz",
        "Time (s),accX,accY,accZ,gyroX,gyroY,gyroZ",
        "Timestamp [s],AccelerometerX,AccelerometerY,AccelerometerZ,GyroscopeX,GyroscopeY,GyroscopeZ",
        "time (s),Acceleration x (m/s^2),Acceleration y (m/s^2),Acceleration z (m/s^2),"
        "Gyroscope x (rad/s),Gyroscope y (rad/s),Gyroscope z (rad/s)",
        "ts_s,imu_acc_x_m/s²,imu_acc_y_m/s²,imu_acc_z_m/s²,wx,wy,wz",
        "seconds_elapsed,linear_acceleration.x,linear_acceleration.y,linear_acceleration.z,"
        "angular_velocity.x,angular_velocity.y,angular_velocity.z",
        "# elapsed (s),ACC_X,ACC_Y,ACC_Z,rotation_x,rotation_y,rotation_z",
    ],
)
def test_common_spellings_of_a_header(tmp_path, header):
    time_s = np.arange(200) / 100
    series = _series(_csv(tmp_path / "a.csv", time_s, _motion(time_s), header))
    np.testing.assert_allclose(series.values, _motion(time_s), atol=1e-5)
    np.testing.assert_allclose(series.time_s, time_s, atol=1e-9)
    assert all("no unit: taken as s (100 Hz)" in note for note in series.notes)


def test_units_come_from_header_or_hints_and_contradictions_are_refused(tmp_path):
    time_s = np.arange(200) / 100
    si = _motion(time_s)
    given = np.column_stack([si[:, :3] / 9.80665, np.degrees(si[:, 3:])])
    stated = "time_ms,acc_x [g],acc_y [g],acc_z [g],gyro_x_deg_s,gyro_y_deg/s,gyro_z (°/s)"
    by_header = _csv(tmp_path / "header.csv", time_s * 1000, given, stated)
    by_hint = _csv(tmp_path / "hint.csv", time_s, given)
    hints = {"acceleration_unit": "g", "rotation_unit": "deg/s"}
    for series in (_series(by_header), _series(by_hint, **hints), _series(by_header, acceleration_unit="g")):
        np.testing.assert_allclose(series.values, si, atol=1e-4)
        np.testing.assert_allclose(series.time_s, time_s, atol=1e-9)
        assert series.notes == ()
    with pytest.raises(MediaError, match="give different units"):
        _series(by_header, acceleration_unit="m/s2")
    with pytest.raises(MediaError, match="expected 'rad/s' or 'deg/s'"):
        _series(by_hint, rotation_unit="rpm")
    with pytest.raises(MediaError, match="different units; use one"):
        _series(_csv(tmp_path / "mixed.csv", time_s, given, stated.replace("acc_x [g]", "acc_x [mg]")))


def test_numbers_without_a_unit_tell_it_and_a_note_says_so():
    still = np.tile([0.0, 0.0, 1.0, 0.0, 0.0, 200.0], (400, 1))
    [segment] = _read_array(still)
    assert any("lasting magnitude of 1.00: taken as g" in note for note in segment.notes)
    assert any("reaches 200: taken as deg/s" in note for note in segment.notes)
    np.testing.assert_allclose(segment.views[0, [2, 5], 0], [9.80665, np.radians(200)], rtol=1e-6)
    # A hint is not doubted, and neither is shaking of 1 m/s2 whose gravity somebody has removed.
    [hinted] = _read_array(still, acceleration_unit="m/s2", rotation_unit="rad/s")
    assert hinted.views[0, :, 0].tolist() == [0, 0, 1, 0, 0, 200]
    assert any("g? Set acceleration_unit" in note for note in hinted.notes)
    assert any("reaches 200: deg/s? Set rotation_unit" in note for note in hinted.notes)
    shaken = np.zeros((2000, 6))
    shaken[:, 0] = np.sqrt(2) * np.sin(np.arange(2000) / 400 * 2 * np.pi * 2)
    np.testing.assert_array_equal(_read_array(shaken)[0].views[0, :3], shaken.T[:3].astype(np.float32))


def test_a_stated_unit_that_looks_wrong_is_noted_and_not_changed():
    still = np.tile([0.0, 0.0, 9.81, 0.0, 0.0, 0.0], (400, 1))
    [segment] = _read_array(still, acceleration_unit="g")
    assert any("given in m/s2, not g?" in note for note in segment.notes)
    assert segment.views[0, 2, 0] == pytest.approx(9.81 * 9.80665)


@pytest.mark.parametrize(("unit", "scale"), [("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
@pytest.mark.parametrize("rate_hz", [1.25, 50.0, 1000.0])
def test_times_without_a_unit_are_taken_by_their_rate(tmp_path, unit, scale, rate_hz):
    time_s = np.arange(100) / rate_hz
    # Milliseconds and finer as whole numbers since 1970, as loggers write them.
    stamps = time_s + 1.7e9 if unit == "s" else (time_s * scale).round().astype(np.int64) + int(1.7e9 * scale)
    path = tmp_path / "a.parquet"
    values = _motion(time_s)
    parquet.write_table(pa.table({"timestamp": stamps, **{n: values[:, i] for i, n in enumerate(CHANNELS)}}), path)
    series = _series(path)
    np.testing.assert_allclose(series.time_s, time_s, atol=1e-6)
    assert series.notes == (f"its time column has no unit: taken as {unit} ({rate_hz:.4g} Hz)",)


def test_a_stated_time_unit_is_kept_apart_from_its_neighbours(tmp_path):
    time_s = np.arange(100) / 50
    for title, scale in (
        ("time (µs)", 1e6),
        ("time (μs)", 1e6),
        ("timestampNs", 1e9),
        ("t_s", 1.0),
        ("epoc (ms)", 1e3),
    ):
        path = _csv(tmp_path / "a.csv", time_s * scale, _motion(time_s), HEADER.replace("time_s", title))
        np.testing.assert_allclose(_series(path).time_s, time_s, atol=1e-6)
    too_fast = _csv(tmp_path / "b.csv", time_s / 1000, _motion(time_s), HEADER.replace("time_s", "time"))
    with pytest.raises(MediaError, match="name the unit in the header"):
        _series(too_fast)


@pytest.mark.parametrize("form", ["2024-03-01 12:00:{:06.3f}", "2024-03-01T12:00:{:06.3f}Z"])
def test_clock_times_are_read(tmp_path, form):
    values = _motion(np.arange(100) / 50)
    path = tmp_path / "a.csv"
    rows = [form.format(i / 50) + "," + ",".join(f"{v:.6f}" for v in row) for i, row in enumerate(values)]
    path.write_text("\n".join(["timestamp," + ",".join(CHANNELS), *rows]))
    np.testing.assert_allclose(_series(path).time_s, np.arange(100) / 50, atol=1e-9)
    stamps = pa.array((np.arange(100) * 20_000_000).astype("datetime64[ns]"))
    table = pa.table({"time": stamps, **{n: values[:, i] for i, n in enumerate(CHANNELS)}})
    parquet.write_table(table, tmp_path / "a.parquet")
    np.testing.assert_allclose(_series(tmp_path / "a.parquet").time_s, np.arange(100) / 50, atol=1e-9)


def test_decimal_commas_between_semicolons(tmp_path):
    time_s = np.arange(100) / 50
    path = _csv(tmp_path / "a.csv", time_s, _motion(time_s), HEADER.replace(",", ";"), ";")
    path.write_text(path.read_text().replace(".", ","))
    np.testing.assert_allclose(_series(path).values, _motion(time_s), atol=1e-5)


def test_without_a_gyroscope_the_rotation_is_zero_and_noted(tmp_path):
    time_s = np.arange(100) / 50
    path = _csv(tmp_path / "a.csv", time_s, _motion(time_s)[:, :3], "time_s,acc_x,acc_y,acc_z")
    series = _series(path)
    assert not series.values[:, 3:].any()
    np.testing.assert_allclose(series.values[:, :3], _motion(time_s)[:, :3], atol=1e-5)
    assert series.notes == ("no gyroscope: rotation set to 0",)


def test_irregular_samples_are_resampled_to_the_true_times(tmp_path):
    random = np.random.default_rng(0)
    time_s = np.sort(random.uniform(0, 5, 3000))
    time_s = np.unique(np.concatenate([[0.0], time_s.round(6), [5.0]]))
    path = _csv(tmp_path / "a.csv", time_s, _motion(time_s))
    [segment] = _read_path(path)
    wanted = _motion(np.arange(2000) / 400).T
    assert np.abs(segment.views[0] - wanted)[:, 20:-20].max() < 0.2
    # Negative control: the samples taken as if they were regular are far off.
    as_regular = _read_array(_motion(time_s), rate_hz=len(time_s) / 5)[0].views[0]
    assert np.abs(as_regular - wanted).max() > 1


def test_faster_sensors_are_low_passed_before_they_are_thinned():
    time_s = np.arange(10_000) / 2000
    slow, fast = np.sin(2 * np.pi * 20 * time_s), np.sin(2 * np.pi * 390 * time_s)
    values = np.zeros((10_000, 6))
    values[:, 0], values[:, 1] = slow, fast
    view = _read_array(values, rate_hz=2000.0)[0].views[0]
    np.testing.assert_allclose(view[0, 20:-20], slow[::5][20:-20], atol=2e-3)
    assert np.abs(view[1, 50:-50]).max() < 1e-2
    # Negative control: every fifth sample alone turns 390 Hz into a strong 10 Hz.
    assert np.abs(fast[::5]).max() > 0.9


def test_segments_follow_one_another_and_cover_all():
    time_s = np.arange(12 * 100) / 100
    values = _motion(time_s)
    segments = _read_array(values, "segments", rate_hz=100.0)
    assert [(s.start_s, s.end_s) for s in segments] == [(0.0, 5.0), (5.0, 10.0), (7.0, 12.0)]
    for segment in segments:
        assert segment.views.shape == (1, 6, 2000)
        rows = slice(round(segment.start_s * 100), round(segment.end_s * 100))
        np.testing.assert_allclose(segment.views[0, :, ::4], values[rows].T, atol=1e-5)
    [whole] = _read_array(values, rate_hz=100.0)
    assert (whole.start_s, whole.end_s) == (0.0, 12.0)
    np.testing.assert_array_equal(whole.views, np.concatenate([s.views for s in segments]))


def test_whole_spreads_its_windows_evenly():
    time_s = np.arange(60 * 50) / 50
    segments = _read_array(_motion(time_s) + time_s[:, None], "segments", rate_hz=50.0)
    [whole] = _read_array(_motion(time_s) + time_s[:, None], rate_hz=50.0)
    assert len(segments) == 12
    np.testing.assert_array_equal(whole.views, np.stack([segments[i].views[0] for i in (0, 6, 11)]))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    rows=st.integers(25, 900),
    rate_hz=st.sampled_from([25.0, 50.0, 99.7, 400.0]),
    start_s=st.sampled_from([None, 0.0, 1.3]),
    length_s=st.sampled_from([None, 2.5, 7.2]),
)
def test_any_length_is_covered(rows, rate_hz, start_s, length_s):
    end_s = None if length_s is None else (start_s or 0.0) + length_s
    values = np.zeros((rows, 6))
    duration_s = rows / rate_hz
    begin, end = start_s or 0.0, min(duration_s, end_s or math.inf)
    if end - begin < 0.5:
        with pytest.raises(MediaError, match=r"expected at least 0\.5 s"):
            _read_array(values, "segments", rate_hz=rate_hz, start_s=start_s, end_s=end_s)
        return
    segments = _read_array(values, "segments", rate_hz=rate_hz, start_s=start_s, end_s=end_s)
    assert segments[0].start_s == begin
    assert segments[-1].end_s == pytest.approx(end, abs=1 / rate_hz)
    for segment in segments:
        assert segment.views.shape == (1, 6, 2000)
        assert segment.end_s - segment.start_s == pytest.approx(min(5.0, end - begin))
    for before, after in itertools.pairwise(segments):
        assert before.start_s < after.start_s <= before.end_s


def test_hints_confine_a_recording_to_a_part():
    values = _motion(np.arange(4000) / 400)
    [segment] = _read_array(values, start_s=4.0, end_s=9.0)
    assert (segment.start_s, segment.end_s) == (4.0, 9.0)
    np.testing.assert_allclose(segment.views[0], values[1600:3600].T, atol=1e-4)
    with pytest.raises(MediaError, match=r"between start_s and end_s only 0\.000 s"):
        _read_array(values, start_s=12.0)


def test_short_recordings_are_mirrored_to_fill_the_window():
    values = _motion(np.arange(800) / 400)
    [segment] = _read_array(values)
    assert segment.views.shape == (1, 6, 2000)
    np.testing.assert_allclose(segment.views[0, :, :800], values.T, atol=1e-5)
    np.testing.assert_allclose(segment.views[0, :, 800:1599], values[-2::-1].T, atol=1e-5)
    assert (segment.start_s, segment.end_s) == (0.0, 2.0)
    assert segment.notes == ("2.00 s do not fill the 5 s window: mirrored to fill it",)


def test_gaps_are_noted_and_windows_that_are_mostly_gap_are_left_out(tmp_path):
    time_s = np.arange(20 * 100) / 100
    # A second is missing from the first window, nearly all of the third.
    keep = ~((time_s > 1) & (time_s < 2)) & ~((time_s > 10.5) & (time_s < 14.9))
    path = _csv(tmp_path / "a.csv", time_s[keep], _motion(time_s[keep]))
    segments = _read_path(path, "segments")
    left_out = "1 of 4 windows were mostly gap: left out"
    assert [s.start_s for s in segments] == [0.0, 5.0, 15.0]
    assert [s.notes for s in segments] == [
        (left_out, "gaps without samples, interpolated: 1.00-2.00 s"),
        (left_out,),
        (left_out,),
    ]
    [whole] = _read_path(path)
    assert whole.notes == (left_out, "gaps without samples, interpolated: 1.00-2.00 s, 10.50-14.90 s")
    np.testing.assert_array_equal(whole.views, np.concatenate([s.views for s in segments]))
    ends = (time_s < 0.5) | (time_s > 19)
    with pytest.raises(MediaError, match=r"mostly gaps: .*0\.49-19\.01 s"):
        _read_path(_csv(tmp_path / "b.csv", time_s[ends], _motion(time_s[ends])), config=ImuConfig(window_s=20.0))


def test_disordered_and_repeated_times_are_mended_and_noted(tmp_path):
    time_s = np.arange(500) / 100
    order = np.arange(500)
    order[[100, 101]] = order[[101, 100]]
    order = np.insert(order, 200, 200)
    [segment] = _read_path(_csv(tmp_path / "a.csv", time_s[order], _motion(time_s[order])))
    assert segment.notes == (
        "1 of 501 rows were out of order in time: sorted",
        "1 of 501 rows repeated a time: left out",
    )
    np.testing.assert_allclose(segment.views[0, :, :1996:4], _motion(time_s)[:499].T, atol=1e-4)


def test_unusable_rows_are_left_out_up_to_a_share():
    values = _motion(np.arange(500) / 100)
    clean = _read_array(values, rate_hz=100.0)[0].views
    for bad in (np.nan, np.inf, -np.inf, 1e30):
        few = values.copy()
        few[100:105, 2] = bad
        [segment] = _read_array(few, rate_hz=100.0)
        assert segment.notes == ("5 of 500 rows had missing, infinite or impossible values: left out",)
        assert np.isfinite(segment.views).all()
        assert np.abs(segment.views - clean).max() < 1.0
        many = values.copy()
        many[::4, 0] = bad
        with pytest.raises(MediaError, match="125 of 500 rows have missing, infinite"):
            _read_array(many, rate_hz=100.0)


def test_empty_fields_and_ragged_rows_of_a_csv(tmp_path):
    time_s = np.arange(500) / 100
    path = _csv(tmp_path / "a.csv", time_s, _motion(time_s))
    lines = path.read_text().splitlines()
    lines[50] = lines[50].rsplit(",", 1)[0] + ","
    lines[60] = lines[60].rsplit(",", 2)[0]
    path.write_text("\n".join(lines))
    assert _series(path).notes == (
        "1 of 500 rows had a wrong number of fields: left out",
        "1 of 499 rows had missing, infinite or impossible values: left out",
    )


def _bad_tables(folder: Path) -> dict[str, tuple[str, str]]:
    """Contents of CSV files and why each is refused."""
    time_s = np.arange(200) / 100
    good = _csv(folder / "good.csv", time_s, _motion(time_s)).read_text()
    header, *rows = good.splitlines()
    restarted = "\n".join([header, *rows, *rows])
    coarse = "\n".join([header, *(f"{i // 100},1,2,9,0,0,0" for i in range(500))])
    return {
        "blank": ("  \n ", "no rows below a header"),
        "only a header": (header, "no rows below a header"),
        "no header": ("\n".join(rows), "has no header line"),
        "other columns": (good.replace("acc_y", "pressure"), "has no acc_y among its columns"),
        "half a gyroscope": (good.replace("gyro_z", "label"), "has no gyro_z among its columns"),
        "no time": (good.replace("time_s", "row"), "say its sampling rate with the hint rate_hz"),
        "twice": (good.replace("gyro_x", "ax"), "'acc_x' and 'ax' both look like acc_x"),
        "words": (good.replace("\n0.5,", "\n0.5,oops,1,1,1,1,1\n0.5,", 1), "not be read as a table of numbers.*oops"),
        "restarted": (restarted, "clock steps back by 1.99 s at row 201"),
        "coarse": (coarse, "only 5 of 500 rows have a time of their own"),
        "short": ("\n".join([header, *rows[:20]]), "lasts 0.200 s, expected at least 0.5 s"),
        "slow": ("\n".join([header, *(f"{i},1,2,9,0,0,0" for i in range(50))]), "sampled at 1 Hz"),
        "one row": ("\n".join([header, rows[0]]), "1 usable rows"),
        "ragged": ("\n".join([header, *(row + ",1" for row in rows)]), "200 of 200 rows have not the 7 fields"),
        "nothing but NaN": ("\n".join([header, *(f"{i},,,,,," for i in range(50))]), "50 of 50 rows have missing"),
        "playlist": ("#EXTM3U\nhttp://x/y.csv\n", "playlist"),
    }


def test_bad_tables_are_refused_with_their_reason(tmp_path):
    for name, (content, reason) in _bad_tables(tmp_path).items():
        path = tmp_path / f"{name}.csv"
        path.write_text(content)
        with pytest.raises(MediaError, match=reason) as caught:
            _read_path(path)
        assert caught.value.path == str(path)


def test_arrays_without_a_gyroscope():
    good = _motion(np.arange(400) / 400)
    silent = good.copy()
    silent[:, 3:] = np.nan
    for values in (good[:, :3], silent):
        series = read_imu(Source(values, "array", Hints(rate_hz=400.0)), LIMITS)
        np.testing.assert_array_equal(series.values[:, :3], good[:, :3].astype(np.float32))
        assert not series.values[:, 3:].any()
        assert series.notes[0] == "no gyroscope: rotation set to 0"
    silent[5, 3:] = 0.1  # a gyroscope that works at one moment only is broken
    with pytest.raises(MediaError, match="399 of 400 rows have missing"):
        read_imu(Source(silent, "array", Hints(rate_hz=400.0)), LIMITS)


def test_bad_arrays_are_refused_with_their_reason():
    good = _motion(np.arange(400) / 400)
    for values, reason in (
        (good.T, r"got \(6, 400\); pass its transpose"),
        (good[:, :4], r"expected an array \(T, 6\)"),
        (good[None], r"expected an array \(T, 6\)"),
        (good[:0], "no rows"),
        (good[:40], "lasts 0.100 s"),
        (good.astype(complex), "expected an array of numbers, got complex128"),
        (good.astype(object), "expected an array of numbers, got object"),
        ([1, 2, 3], "got list"),
    ):
        with pytest.raises(MediaError, match=reason):
            _read_array(values)
    for rate_hz in (None, 0.0, -1.0, math.nan, math.inf):
        with pytest.raises(MediaError, match="rate_hz"):
            _read_array(good, rate_hz=rate_hz)


def test_limits_hold(tmp_path):
    time_s = np.arange(3000) / 100
    values = _motion(time_s)
    path = _csv(tmp_path / "a.csv", time_s, values)
    np.save(tmp_path / "a.npy", values)
    parquet.write_table(pa.table({"time_s": time_s, "acc_x": time_s}), tmp_path / "a.parquet")
    for source in (path, tmp_path / "a.npy", tmp_path / "a.parquet", values):
        with pytest.raises(MediaError, match="the limit is 2,999"):
            read_imu(Source(source, str(source)[:200] if isinstance(source, Path) else "array"), Limits(max_rows=2999))
    with pytest.raises(MediaError, match="lasts 30 s, the limit is 20"):
        read(Source(path, str(path)), CONFIG, Limits(max_duration_s=20.0), "whole")
    stretch = Source(path, str(path), Hints(start_s=3.0, end_s=23.0))
    assert read(stretch, CONFIG, Limits(max_duration_s=20.0), "whole")[0].end_s == 23.0
    with pytest.raises(MediaError, match="max_bytes"):
        read_imu(Source(path, str(path)), Limits(max_bytes=1000))


def test_pickled_arrays_are_refused_because_they_could_run_code():
    path = Path(seglearn.__file__).parent / "data" / "watch_dataset.npy"
    with pytest.raises(MediaError, match="holds pickled Python objects, which could run code"):
        _read_path(path, rate_hz=50.0)


def test_a_real_watch_recording_becomes_windows(tmp_path):
    # seglearn's watch data (Burns et al. 2018): 50 Hz, acceleration in g, rotation in rad/s.
    path = Path(seglearn.__file__).parent / "data" / "watch_dataset.npy"
    recording = np.load(path, allow_pickle=True).item()["X"][0]
    np.save(tmp_path / "watch.npy", recording)
    segments = _read_path(tmp_path / "watch.npy", "segments", rate_hz=50.0, acceleration_unit="g")
    assert len(segments) == math.ceil(len(recording) / 250)
    assert all(segment.notes == () for segment in segments)
    pull = np.linalg.norm(segments[0].views[0, :3], axis=0)
    assert np.median(pull) == pytest.approx(9.8, rel=0.3)  # it was worn in exercises
    [unstated] = _read_path(tmp_path / "watch.npy", rate_hz=50.0)
    (note,) = (note for note in unstated.notes if "taken as" in note)  # and its rotation is left as it is
    assert note.startswith("acceleration has no unit and a lasting magnitude of 1.2")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_cut_mislabelled_and_missing_files(tmp_path, suffix):
    time_s = np.arange(300) / 100
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".csv":
        _csv(whole, time_s, _motion(time_s))
    elif suffix == ".npy":
        np.save(whole, _motion(time_s))
    else:
        values = _motion(time_s)
        parquet.write_table(pa.table({"time_s": time_s, **{n: values[:, i] for i, n in enumerate(CHANNELS)}}), whole)
    data = whole.read_bytes()
    hints = Hints(rate_hz=100.0)
    sources = []
    for tenth in range(10):
        cut = tmp_path / f"cut{tenth}{suffix}"
        cut.write_bytes(data[: len(data) * tenth // 10])
        sources.append(Source(cut, str(cut), hints))
    sources.append(Source(data, "x.wav", hints))
    sources.append(Source(b"\x89PNG\r\n\x1a\n" + bytes(64), f"x{suffix}", hints))
    sources.append(Source(tmp_path, str(tmp_path), hints))
    sources.append(Source(tmp_path / "no.csv", "no.csv", hints))
    sources.append(Source(whole, str(whole), hints))
    with DecodePool(workers=1) as pool:
        futures = [pool.submit(read, source, CONFIG, LIMITS, "whole") for source in sources]
        errors = [future.exception() for future in futures]
    assert errors.pop() is None
    np.testing.assert_array_equal(futures[-1].result()[0].views, read(sources[-1], CONFIG, LIMITS, "whole")[0].views)
    for error, source in zip(errors, sources, strict=False):
        if error is None:
            # Only a table of lines can be cut and still be one.
            assert suffix == ".csv"
            assert "cut" in source.name
        else:
            assert isinstance(error, MediaError), repr(error)
            assert error.path == source.name
