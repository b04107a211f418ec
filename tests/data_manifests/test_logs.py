"""Recordings of robots and drones, written small by the libraries that read them -> manifests of paired events."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mcap.writer import Writer as McapWriter
from PIL import Image
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore
from typer.testing import CliRunner

from data_manifests import logs
from data_manifests.logs.alignment import find_offset
from data_manifests.logs.containers import Log, LogError
from preprocess import manifest
from preprocess.readers import depth, image
from preprocess.readers.imu import read_imu
from preprocess.source import Limits, MediaError
from serve.cli import app

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)
START_S = 1_700_000_000.0
SECONDS, MOTION_HZ, FRAME_HZ = 12.0, 100.0, 15.0
LATE_S = 0.25
"""The clock of the motion says this much too little."""

Messages = Iterator[tuple[str, str, float, float, object]]
"""(topic, kind, received, stamped, values)."""


def turning(time_s: np.ndarray, seed: int = 0) -> np.ndarray:
    """(T,) angle in radians: a device that is turned to and fro without a rhythm."""
    waves = np.random.default_rng(seed).uniform([0.2, 0.1, 0], [1.7, 0.3, 6.28], (8, 3))
    return sum(size * np.sin(2 * np.pi * rate * time_s + phase) for rate, size, phase in waves)


def wall() -> np.ndarray:
    """(48, 8000) uint8: large and small things, as pictures of the world have them."""
    rng = np.random.default_rng(1)
    sizes = (4, 16, 64, 256)
    sums = sum(size * rng.normal(0, 1, (6, 8_000 // size + 1)).repeat(size, axis=1)[:, :8_000] for size in sizes)
    scaled = (sums - sums.min()) / (sums.max() - sums.min()) * 255
    return scaled.astype(np.uint8).repeat(8, axis=0)


def session(seed: int = 0, stamps: bool = True) -> Messages:
    time_s = np.arange(round(SECONDS * MOTION_HZ)) / MOTION_HZ
    rate = np.gradient(turning(time_s, seed), time_s)
    events = [("/imu", second, (0.1, 0.2, 9.8, 0.0, 0.0, rate[i])) for i, second in enumerate(time_s)]
    view = wall()
    for second in np.arange(round(SECONDS * FRAME_HZ)) / FRAME_HZ:
        left = round(4_000 + 200 * float(turning(np.array([second]), seed)[0]))
        events.append(("/camera", second, np.ascontiguousarray(view[:, left : left + 64])))
        events.append(("/depth", second + 0.01, np.full((12, 16), 1000 + round(100 * second), np.uint16)))
    for topic, second, value in sorted(events, key=lambda event: event[1]):
        own = second - (LATE_S if topic == "/imu" else 0.0)
        yield topic, topic, START_S + own, START_S + own if stamps else 0.0, value


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def ros(types, topic: str, stamped_s: float, value: object, compressed: bool) -> tuple[str, object]:  # type: ignore[no-untyped-def]
    made = types.types
    time = made["builtin_interfaces/msg/Time"](sec=int(stamped_s), nanosec=round(stamped_s % 1 * 1e9))
    header = made["std_msgs/msg/Header"](stamp=time, frame_id="", **({"seq": 0} if types is ROS1 else {}))
    if topic == "/imu":
        vector, nine = made["geometry_msgs/msg/Vector3"], np.zeros(9)
        turn = made["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        kind = "sensor_msgs/msg/Imu"
        fields = {"orientation": turn, "orientation_covariance": nine, "angular_velocity_covariance": nine}
        fields |= {"linear_acceleration_covariance": nine, "linear_acceleration": vector(*map(float, value[:3]))}
        return kind, made[kind](header=header, angular_velocity=vector(*map(float, value[3:])), **fields)
    if topic == "/camera" and compressed:
        kind = "sensor_msgs/msg/CompressedImage"
        return kind, made[kind](header=header, format="png", data=np.frombuffer(png(value), np.uint8))
    kind = "sensor_msgs/msg/Image"
    encoding = "mono8" if topic == "/camera" else "16UC1"
    height, width = value.shape
    data = value.view(np.uint8).reshape(-1)
    fields = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": len(data) // height}
    return kind, made[kind](header=header, data=data, **fields)


def write_bag1(path: Path, messages: Messages) -> Path:
    with rosbag1.Writer(path) as writer:
        known = {}
        for topic, _, received_s, stamped_s, value in messages:
            kind, message = ros(ROS1, topic, stamped_s, value, False)
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=ROS1)
            writer.write(known[topic], round(received_s * 1e9), ROS1.serialize_ros1(message, kind))
    return path


def write_bag2(path: Path, messages: Messages) -> Path:
    with rosbag2.Writer(path, version=9) as writer:
        known = {}
        for topic, _, received_s, stamped_s, value in messages:
            kind, message = ros(ROS2, topic, stamped_s, value, True)
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=ROS2)
            writer.write(known[topic], round(received_s * 1e9), ROS2.serialize_cdr(message, kind))
    return path


def write_mcap(path: Path, messages: Messages) -> Path:
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start()
        known = {}
        for topic, _, received_s, stamped_s, value in messages:
            kind, message = ros(ROS2, topic, stamped_s, value, True)
            if topic not in known:
                schema = writer.register_schema(kind, "ros2msg", ROS2.generate_msgdef(kind)[0].encode())
                known[topic] = writer.register_channel(topic, "cdr", schema)
            content = bytes(ROS2.serialize_cdr(message, kind))
            writer.add_message(known[topic], round(received_s * 1e9), content, round(received_s * 1e9))
        writer.finish()
    return path


def write_json_mcap(path: Path, messages: Messages) -> Path:
    """As Foxglove's tools write it, without depth."""
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start()
        channels = {
            topic: writer.register_channel(topic, "json", writer.register_schema(kind, "jsonschema", b"{}"))
            for topic, kind in (("/imu", "sensor_msgs/Imu"), ("/camera", "foxglove.CompressedImage"))
        }
        for topic, _, received_s, stamped_s, value in messages:
            stamp = {"sec": int(stamped_s), "nsec": round(stamped_s % 1 * 1e9)}
            if topic == "/imu":
                parts = {"linear_acceleration": value[:3], "angular_velocity": value[3:]}
                body = {name: dict(zip("xyz", map(float, part), strict=True)) for name, part in parts.items()}
                body["header"] = {"stamp": stamp}
            elif topic == "/camera":
                body = {"timestamp": stamp, "data": base64.b64encode(png(value)).decode(), "format": "png"}
            else:
                continue
            time_ns = round(received_s * 1e9)
            writer.add_message(channels[topic], time_ns, json.dumps(body).encode(), time_ns)
        writer.finish()
    return path


WRITERS: dict[str, Callable[[Path, Messages], Path]] = {
    "walk.bag": write_bag1, "walk": write_bag2, "walk.mcap": write_mcap, "foxglove.mcap": write_json_mcap
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_recording_becomes_paired_events_with_one_clock(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / name, session())
    sensors = ["/imu"] if name == "foxglove.mcap" else ["/imu", "/depth"]
    report = logs.build(path, tmp_path / "out.jsonl", anchor="/camera", sensors=sensors, window_s=2.0)
    (told,) = report.sessions
    assert told.offset.is_sure and told.offset.seconds == pytest.approx(LATE_S, abs=0.02)
    assert told.offset.correlation > 0.45 and "0.2" in str(told.offset) and told.notes == ()
    read = manifest.read(tmp_path / "out.jsonl")
    assert report.written == (tmp_path / "out.jsonl",) and len(read.events) == report.events[""] == 6
    whole_s = np.arange(round(SECONDS * MOTION_HZ)) / MOTION_HZ
    rate = np.gradient(turning(whole_s), whole_s)
    for number, event in enumerate(read.events):
        assert event.group == Path(name).stem
        motion = event.media["imu"]
        series = read_imu(motion, Limits())
        np.testing.assert_allclose(series.values[:, 5], rate, atol=1e-4)
        assert motion.hints.end_s - motion.hints.start_s == pytest.approx(2.0)
        assert motion.hints.start_s == pytest.approx(2.0 * number, abs=0.03)
        (view,) = image.read(event.media["image"], image.ImageConfig(), Limits(), "whole")
        assert view.views.shape == (1, 224, 224, 3)
        if "/depth" in sensors:
            depth_m, notes = depth.read_depth_m(event.media["depth"], Limits())
            assert depth_m.mean() == pytest.approx(1 + (2 * number + 1) / 10, abs=0.02) and notes == ()


def test_several_recordings_are_split_by_recording(tmp_path: Path) -> None:
    folder = tmp_path / "walks"
    folder.mkdir()
    for seed in range(3):
        write_mcap(folder / f"walk-{seed}.mcap", session(seed))
    report = logs.build(folder, tmp_path / "all", anchor="/camera", sensors=["/imu"])
    assert [path.name for path in report.written] == ["all-test.jsonl", "all-train.jsonl"]
    groups = [{event.group for event in manifest.read(path).events} for path in report.written]
    assert [len(found) for found in groups] == [1, 2] and not groups[0] & groups[1]
    assert all(one.offset.seconds == pytest.approx(LATE_S, abs=0.02) for one in report.sessions)


def test_the_command_says_the_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_mcap(tmp_path / "walk.mcap", session())
    asked = ["manifest", "log", "walk.mcap", "--anchor", "/camera", "--sensor", "/imu", "--window", "2s"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "walk: motion is 0.2" in shown.output and "walk.jsonl: 6 events" in shown.output
    (one,) = json.loads(CliRunner().invoke(app, [*asked, "--window", "1500ms", "--json"]).output)["sessions"]
    assert one["offset_s"] == pytest.approx(LATE_S, abs=0.02) and one["events"] == 8
    for wrong, reason in [
        (["--anchor", "/camera"], "expected --anchor"), ([*asked[3:], "--window", "2 h"], "expected a time"),
        ([*asked[3:5], "--sensor", "/none"], "no topic '/none'"),
        (["--anchor", "/imu", "--sensor", "/imu"], "pictures"),
    ]:  # fmt: skip
        failed = CliRunner().invoke(app, [*asked[:3], *wrong])
        assert failed.exit_code in (1, 2) and reason in failed.output + failed.stderr, failed.output


def test_without_stamps_the_recorders_clock_counts_and_is_said(tmp_path: Path) -> None:
    path = write_bag2(tmp_path / "walk", session(stamps=False))
    report = logs.build(path, tmp_path / "out", anchor="/camera", sensors=["/imu"])
    assert report.sessions[0].offset.seconds == pytest.approx(LATE_S, abs=0.02)
    assert "those of the recorder" in report.sessions[0].notes[0]


def write_ulog(path: Path, time_s: np.ndarray, values: np.ndarray) -> Path:
    def message(kind: bytes, content: bytes) -> bytes:
        return struct.pack("<Hc", len(content), kind) + content

    form = b"sensor_combined:uint64_t timestamp;float[3] gyro_rad;float[3] accelerometer_m_s2;"
    parts = [b"ULog\x01\x12\x35\x01", struct.pack("<Q", 0), message(b"F", form)]
    parts.append(message(b"A", struct.pack("<BH", 0, 7) + b"sensor_combined"))
    for second, row in zip(time_s, values, strict=True):
        parts.append(message(b"D", struct.pack("<HQ6f", 7, round(second * 1e6), *row[3:], *row[:3])))
    path.write_bytes(b"".join(parts))
    return path


def test_a_flight_log_with_pictures_named_by_time(tmp_path: Path) -> None:
    pictures = tmp_path / "cam0"
    pictures.mkdir()
    motion_s, motion = [], []
    for topic, _, received_s, _, value in session():
        second = received_s - START_S + 50
        if topic == "/imu":
            motion_s.append(second)
            motion.append(value)
        elif topic == "/camera":
            (pictures / f"{round(second * 1e6)}.png").write_bytes(png(value))
    path = write_ulog(tmp_path / "flight.ulg", np.array(motion_s), np.array(motion))
    report = logs.build(path, tmp_path / "out", anchor=str(pictures), sensors=["sensor_combined"])
    assert report.sessions[0].offset.seconds == pytest.approx(LATE_S, abs=0.02)
    events = manifest.read(tmp_path / "out.jsonl").events
    assert len(events) == 6 and set(events[0].media) == {"image", "imu"}


@pytest.mark.parametrize("true_s", [-0.7, -0.05, 0.0, 0.33, 1.2])
@pytest.mark.parametrize("frame_hz", [8.0, 30.0])
def test_the_offset_is_found(true_s: float, frame_hz: float) -> None:
    rng = np.random.default_rng(3)
    motion_s = np.arange(0, 20, 0.005)
    rate = np.gradient(turning(motion_s), motion_s)
    frame_s = np.arange(0, 20, 1 / frame_hz)
    change = np.abs(np.diff(turning(frame_s))) * frame_hz + rng.normal(0, 0.2, len(frame_s) - 1)
    rotation = np.stack([0 * rate, 0 * rate, rate], axis=1)
    found = find_offset(motion_s - true_s, rotation, frame_s, change, 2.0)
    assert found.is_sure and found.seconds == pytest.approx(true_s, abs=0.02)


def test_no_offset_is_made_up() -> None:
    rng = np.random.default_rng(4)
    motion_s, frame_s = np.arange(0, 20, 0.01), np.arange(0, 20, 1 / 15)
    noise = rng.normal(0, 1, (len(motion_s), 3))
    for change in (rng.normal(0, 1, len(frame_s) - 1) ** 2, np.zeros(len(frame_s) - 1)):
        found = find_offset(motion_s, noise, frame_s, change, 2.0)
        assert not found.is_sure and found.seconds == 0 and "clocks kept" in str(found)
    # Nor where pictures are so noisy that any turn makes another one of them.
    rate = np.gradient(turning(motion_s), motion_s)
    rotation = np.stack([0 * rate, 0 * rate, rate], axis=1)
    assert not find_offset(motion_s, rotation, frame_s, rng.uniform(90, 100, len(frame_s) - 1), 2.0).is_sure
    short = find_offset(motion_s[:2], noise[:2], frame_s[:2], np.ones(1), 2.0)
    assert not short.is_sure


@pytest.mark.parametrize(("name", "content"), [
    ("a.mcap", b"not an mcap"), ("a.bag", b"#ROSBAG V2.0\n" + bytes(100)), ("a.ulg", b"ULog" + bytes(40)),
    ("a.db3", b"SQLite format 3\0" + bytes(100)), ("a.xyz", b"x"), ("none.mcap", None),
])  # fmt: skip
def test_what_is_no_recording_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((LogError, MediaError)):
        logs.build(tmp_path / name, tmp_path / "out", anchor="/camera", sensors=["/imu"])
    assert not (tmp_path / "out.jsonl").exists()


def test_a_picture_that_announces_more_than_it_has_is_refused(tmp_path: Path) -> None:
    kind, message = ros(ROS2, "/depth", START_S, np.ones((4, 4), np.uint16), False)
    message.height = 10**6
    path = tmp_path / "x.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start()
        channel = writer.register_channel("/depth", "cdr", writer.register_schema(kind, "ros2msg", b""))
        writer.add_message(channel, 1, bytes(ROS2.serialize_cdr(message, kind)), 1)
        writer.finish()
    with pytest.raises(LogError, match="announces 1000000 rows"):
        list(Log(path).messages("/depth"))
