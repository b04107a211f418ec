"""Recordings of robots, phones and drones -> motion and pictures by topic: MCAP, ROS 1 and ROS 2 bags, PX4's ULog.

Messages are read with the definitions of the standard messages that come with `rosbags`, never with those that a file
brings: these would become code.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.extras import needs

SUFFIXES = (".mcap", ".bag", ".db3", ".ulg", ".ulog")
"""Of single files; a bag of ROS 2 may also be a folder with a `metadata.yaml`."""
MAX_MESSAGE_BYTES = 2**28
"""Bytes of one message: more than twice an uncompressed picture of 8K, and less than fills the memory."""
_IMU, _IMAGE, _COMPRESSED = "sensor_msgs/msg/Imu", "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
"""The types of ROS messages that are read."""
_FOXGLOVE = {"foxglove.CompressedImage": _COMPRESSED, "foxglove_msgs/msg/CompressedImage": _COMPRESSED}
"""Foxglove's names of the message types that ROS has too."""
_ULOG_MOTION = "sensor_combined"
"""The topic of PX4 with the acceleration and rotation that its estimator used."""
_CHANNELS_OF = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
"""Encoding of an uncompressed picture -> its channels of 8 bits (sensor_msgs/image_encodings.hpp)."""


class LogError(ValueError):
    """A recording that cannot be used: what was expected, what came, and the way out."""


@dataclass(frozen=True)
class Picture:
    """A picture as it was recorded: encoded bytes, or pixels (H, W), (H, W, 3) uint8, depth (H, W) in mm or m."""

    encoded: bytes | None = None
    pixels: np.ndarray | None = None

    @property
    def is_depth(self) -> bool:
        """Whether it holds distances: uint16 millimetres or float32 metres."""
        return self.pixels is not None and self.pixels.dtype != np.uint8


@dataclass(frozen=True)
class Message:
    """What a topic said at one moment: `motion` (6,) in m/s2 and rad/s, or a picture.

    `received_s` is the time of the recorder, `stamped_s` that of the sensor (0 where it has none).
    """

    topic: str
    received_s: float
    stamped_s: float
    motion: np.ndarray | None = None
    picture: Picture | None = None


class Log:
    """One recording. `topics` are those that can be read, with the kind of their messages.

    Raises LogError for what is none; MissingExtra where a package is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: Mapping[str, str] = {}
        with _faults(path):
            if path.suffix in (".ulg", ".ulog"):
                self.topics = {_ULOG_MOTION: _IMU} if _read_ulog(path) else {}
            elif path.suffix == ".mcap":
                self.topics = _mcap_topics(path)
            else:
                with _rosbag(path) as reader:
                    self.topics = {one.topic: one.msgtype for one in reader.connections if one.msgtype in _KINDS}

    def messages(self, *topics: str) -> Iterator[Message]:
        """The messages of some topics, in the order of the recording. Raises LogError for damaged ones."""
        if unknown := [topic for topic in topics if topic not in self.topics]:
            known = ", ".join(f"{topic} ({kind.rpartition('/')[2]})" for topic, kind in self.topics.items())
            raise LogError(f"{self.path}: has no topic {unknown[0]!r} of motion or pictures; it has {known or 'none'}")
        with _faults(self.path):
            if self.path.suffix in (".ulg", ".ulog"):
                yield from _ulog_messages(self.path)
            elif self.path.suffix == ".mcap":
                yield from _mcap_messages(self.path, topics)
            else:
                with _rosbag(self.path) as reader:
                    wanted = [one for one in reader.connections if one.topic in topics]
                    is_ros1 = self.path.suffix == ".bag"
                    for one, received_ns, raw in reader.messages(wanted):
                        yield _message(one.topic, received_ns, _decoded(raw, one.msgtype, is_ros1), one.msgtype)


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Whatever a library raises for bad bytes, as a LogError."""
    try:
        yield
    except (LogError, ImportError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise LogError(f"{path}: does not exist") from None
    except Exception as error:  # of these libraries each raises what it likes
        raise LogError(f"{path}: could not be read: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _rosbag(path: Path) -> Iterator[Any]:
    with needs("sensors", "a bag of ROS"):
        from rosbags import rosbag1, rosbag2
    if path.suffix != ".bag" and not (path / "metadata.yaml").is_file() and path.suffix != ".db3":
        raise LogError(f"{path}: expected {', '.join(SUFFIXES)} or a folder with a metadata.yaml")
    with rosbag1.Reader(path) if path.suffix == ".bag" else rosbag2.Reader(path) as reader:
        yield reader


@cache
def _types(is_ros1: bool) -> Any:
    with needs("sensors", "a recording of ROS"):
        from rosbags.typesys import Stores, get_typestore
    return get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.ROS2_HUMBLE)


def _decoded(raw: bytes, kind: str, is_ros1: bool) -> Any:
    if len(raw) > MAX_MESSAGE_BYTES:
        raise LogError(f"a message has {len(raw):,} bytes, the limit is {MAX_MESSAGE_BYTES:,}")
    types = _types(is_ros1)
    return types.deserialize_ros1(raw, kind) if is_ros1 else types.deserialize_cdr(raw, kind)


# MCAP


def _mcap_topics(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        summary = _mcap(file).get_summary()
        if summary is None:
            raise LogError(f"{path}: has no summary; `mcap recover` writes one")
        kinds = {number: _kind(schema.name) for number, schema in summary.schemas.items()}
        found = {}
        for channel in summary.channels.values():
            kind = kinds.get(channel.schema_id)
            if kind in _KINDS and channel.message_encoding in ("cdr", "ros1", "json"):
                found[channel.topic] = str(kind)
        return found


def _mcap(file: Any) -> Any:
    with needs("sensors", "an MCAP file"):
        from mcap.reader import make_reader
    return make_reader(file)


def _kind(name: str) -> str:
    name = _FOXGLOVE.get(name, name)
    package, _, last = name.rpartition("/")
    return name if package.endswith("/msg") or not package else f"{package}/msg/{last}"


def _mcap_messages(path: Path, topics: tuple[str, ...]) -> Iterator[Message]:
    with path.open("rb") as file:
        for schema, channel, message in _mcap(file).iter_messages(topics=list(topics)):
            kind = _kind(schema.name)
            if channel.message_encoding == "json":
                yield _json_message(channel.topic, message.log_time, json.loads(message.data), kind)
            else:
                value = _decoded(message.data, kind, channel.message_encoding == "ros1")
                yield _message(channel.topic, message.log_time, value, kind)


def _json_message(topic: str, received_ns: int, value: Mapping[str, Any], kind: str) -> Message:
    stamp = value.get("timestamp") or value.get("header", {}).get("stamp", {})
    stamped_s = stamp.get("sec", 0) + stamp.get("nsec", stamp.get("nanosec", 0)) / 1e9
    if kind == _IMU:
        parts = (value["linear_acceleration"], value["angular_velocity"])
        motion = np.array([part[axis] for part in parts for axis in "xyz"], np.float64)
        return Message(topic, received_ns / 1e9, stamped_s, motion)
    return Message(topic, received_ns / 1e9, stamped_s, picture=Picture(base64.b64decode(value["data"])))


# ROS


def _message(topic: str, received_ns: int, value: Any, kind: str) -> Message:
    stamp = value.header.stamp
    return Message(topic, received_ns / 1e9, stamp.sec + stamp.nanosec / 1e9, *_KINDS[kind](value))


def _motion(value: Any) -> tuple[np.ndarray, None]:
    parts = (value.linear_acceleration, value.angular_velocity)
    return np.array([getattr(part, axis) for part in parts for axis in "xyz"], np.float64), None


def _compressed(value: Any) -> tuple[None, Picture]:
    return None, Picture(bytes(value.data))


def _image(value: Any) -> tuple[None, Picture]:
    """sensor_msgs/Image -> its pixels, colours in the order R, G, B."""
    height, width, step = int(value.height), int(value.width), int(value.step)
    data = np.ascontiguousarray(value.data, np.uint8)
    if value.encoding in ("16UC1", "mono16", "32FC1"):
        order = ">" if value.is_bigendian else "<"
        kind = np.dtype(f"{order}u2" if value.encoding != "32FC1" else f"{order}f4")
        rows = _rows(data, height, step, width * kind.itemsize)
        pixels = rows.view(kind).astype(kind.newbyteorder("="))
        return None, Picture(pixels=pixels)
    channels = _CHANNELS_OF.get(value.encoding)
    if channels is None:
        raise LogError(f"pictures in {value.encoding!r} are not read; record compressed ones, rgb8, 16UC1 or 32FC1")
    pixels = _rows(data, height, step, width * channels).reshape(height, width, channels)
    if value.encoding.startswith("bgr") or value.encoding == "8UC3":
        pixels = pixels[..., 2::-1]
    pixels = pixels[..., 0] if channels == 1 else pixels[..., :3]
    return None, Picture(pixels=np.ascontiguousarray(pixels))


def _rows(data: np.ndarray, height: int, step: int, used: int) -> np.ndarray:
    if not (height > 0 and used > 0 and step >= used and data.size == height * step):
        raise LogError(f"a picture announces {height} rows of {step} bytes and has {data.size:,} bytes")
    return np.ascontiguousarray(data.reshape(height, step)[:, :used])


_KINDS: Mapping[str, Any] = {_IMU: _motion, _IMAGE: _image, _COMPRESSED: _compressed}
"""Kinds of messages that are read, and how."""


# PX4


def _read_ulog(path: Path) -> Any:
    with needs("sensors", "a ULog of PX4"):
        from pyulog import ULog
    found = [one for one in ULog(str(path), [_ULOG_MOTION]).data_list if one.name == _ULOG_MOTION]
    return found[0].data if found else None


def _ulog_messages(path: Path) -> Iterator[Message]:
    data = _read_ulog(path)
    titles = [f"{name}[{axis}]" for name in ("accelerometer_m_s2", "gyro_rad") for axis in range(3)]
    values = np.stack([data[title] for title in titles], axis=1).astype(np.float64)
    for time_us, row in zip(data["timestamp"].tolist(), values, strict=True):
        yield Message(_ULOG_MOTION, time_us / 1e6, time_us / 1e6, row)


def named_by_time(folder: Path) -> list[tuple[float, Path]]:
    """A folder of pictures called after their times (s, ms, us or ns) -> (seconds, picture), in order.

    The unit is the one that puts the usual step between two pictures between 1 ms and 2 s.
    """
    stamped = sorted((float(path.stem), path) for path in folder.iterdir() if _is_stamp(path.stem))
    steps = np.diff([stamp for stamp, _ in stamped])
    if len(steps) < 1 or not (step := float(np.median(steps))) > 0:
        raise LogError(f"{folder}: expected pictures that are called after their times, as 1700000000123456789.png")
    scale = next((scale for scale in (1.0, 1e-3, 1e-6, 1e-9) if 1e-3 <= step * scale <= 2.0), math.nan)
    if math.isnan(scale):
        raise LogError(f"{folder}: its pictures are {step:g} apart, of no unit that gives 0.5 to 1000 a second")
    return [(stamp * scale, path) for stamp, path in stamped]


def _is_stamp(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
