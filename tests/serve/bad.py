"""Files that cannot be used, one of each kind that the tests of preprocessing have: (content, modality said)."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.serve import tiny

_ROWS = "\n".join(f"{i / 100},0.1,0.2,9.8,0,0,{i % 7}" for i in range(300))
_HEADER = "time,acc_x,acc_y,acc_z,gyro_x,gyro_y,gyro_z\n"


def _saved(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def _npy(values: np.ndarray, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=pickled)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few kilobytes that unpacks to side * side pixels."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(-(-side // 8) + 1)) for _ in range(side)) + rows.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _promise(shape: str) -> bytes:
    """A `.npy` whose head promises an array of a shape that does not follow."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64)


def files() -> dict[str, tuple[bytes, str | None]]:
    """All of them."""
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8))
    picture, jpeg = _saved(noise, "PNG"), _saved(noise, "JPEG")
    with tempfile.TemporaryDirectory() as folder:
        sound = tiny.sound(Path(folder) / "s.wav", 440).read_bytes()
        film = tiny.clip(Path(folder) / "f.mp4", 1.0).read_bytes()
    nan = bytearray(sound[:44]) + np.full(16_000, np.nan, "<f4").tobytes()
    struct.pack_into("<HHIIHH", nan, 20, 3, 1, 16_000, 64_000, 4, 32)
    struct.pack_into("<I", nan, 40, 64_000)
    return {
        "empty.png": (b"", None),
        "empty.mp4": (b"", None),
        "words.png": (b"no picture at all", None),
        "noise.mp4": (random.bytes(5000), None),
        "program.mp3": (b"MZ\x90\0", None),
        "unknown.bin": (b"\0\1\2\3", None),
        "cut.png": (picture[: len(picture) // 2], None),
        "cut.jpg": (jpeg[:40], None),
        "nothing.gif": (b"GIF89a" + bytes(20), None),
        "photo.heic": (b"\0\0\0\x18ftypheic" + bytes(64), None),
        "post.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", None),
        "bomb.png": (bomb(), None),
        "picture.wav": (picture, None),
        "sound.png": (sound, None),
        "film.png": (film, None),
        "sound said to be a picture": (sound, "image"),
        "picture said to be sound": (picture, "audio"),
        "picture said to be a film": (picture, "video"),
        "list.m3u8": (b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", None),
        "list.mp4": (b"#EXTM3U\nfile:///etc/passwd\n", None),
        "concat.txt": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", None),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", None),
        "manifest.mpd": (b"<?xml version='1.0'?><MPD></MPD>", None),
        "head.mp4": (film[:64], None),
        "box.mp4": (b"\0\0\0\x18ftypisom" + bytes(100), None),
        "head.wav": (sound[:44], None),
        "nan.wav": (bytes(nan), None),
        "cut.flac": (b"fLaC" + bytes(40), None),
        "blank.txt": (b" \n\t ", None),
        "nul.txt": (b"a\0b", None),
        "latin.txt": (b"caf\xe9 au lait\x07", None),
        "long.txt": (b"a " * 500_001, None),
        "holes.depth.npy": (_npy(np.zeros((8, 8), np.float32)), None),
        "promise.depth.npy": (_promise("(30000, 30000)"), None),
        "short.depth.npy": (_promise("(100, 100)"), None),
        "pickle.depth.npy": (_npy(np.array([{}, {}], object), pickled=True), None),
        "bare.npy": (_npy(np.ones((8, 8), np.float32)), None),
        "damaged.depth.exr": (b"v/1\x01" + bytes(60), None),
        "nan.thermal.npy": (_npy(np.full((8, 8), np.nan, np.float32)), None),
        "columns.csv": (b"a,b,c\n1,2,3\n", None),
        "rows.csv": ((_HEADER + "0,1,2,3,4,5,6\n").encode(), None),
        "gaps.csv": ((_HEADER + _ROWS.replace("0.2", "nan")).encode(), None),
        "words.csv": ((_HEADER + "x,y,z,x,y,z,x\n" * 300).encode(), None),
        "damaged.parquet": (b"PAR1" + bytes(60) + b"PAR1", None),
        "archive.zip": (b"PK\x03\x04" + bytes(60), None),
    }
