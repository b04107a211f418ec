"""Cases of pictures, sounds, films, texts, names and sidecars."""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from tests.cases.table import case, cosine, means, model, noise, written
from tests.preprocess.made import RATE, film, sound, tone

HZ = 1234.0


def _picture(fmt: str, pixels: np.ndarray, **how: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, fmt, **how)
    return out.getvalue()


def _wav(samples: np.ndarray, fmt: str = "WAV", subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format=fmt, subtype=subtype)
    return out.getvalue()


def _id3(size: int) -> bytes:
    return b"ID3\3\0\0" + bytes((size >> 7 * (3 - place)) & 127 for place in range(4)) + bytes(size)


# Part 2: names and sidecars


def _photo(folder: Path, name: str, sidecar: str | bytes | None = None) -> None:
    path = written(folder, name, _picture("JPEG", noise(1), quality=95))
    if sidecar is not None:
        written(folder, f"{name}.json", sidecar)
    plain = written(folder, "plain/a.jpg", _picture("JPEG", noise(1), quality=95))
    means(path, plain, written(folder, "plain/b.jpg", _picture("JPEG", noise(2))))


for _name in (
    *("depth of field.jpg", "Thermal baths Budapest.jpg", "ir a la playa.jpg", "infrared.jpeg", "x_depth.jpg"),
    *("thermal/me.jpg", "motion blur.jpg", "IR_0001.jpg"),
):
    case("2", f"a photograph called `{_name}`")(lambda folder, name=_name: _photo(folder, name))  # type: ignore[misc]
_SIDECARS = {
    "is a list": '[{"label": "cat", "bbox": [1, 2, 3, 4]}]',
    "has NaN": '{"score": NaN}',
    "has a unit of something else": '{"unit": 5, "scale": "2x"}',
    "has a modality of medicine": '{"modality": "MRI"}',
    "has times in words": '{"start_s": "soon"}',
    "is a number": "3",
    "is empty": "",
    "is no text": bytes(range(256)),
    "has another schema": '{"rate_hz": -5, "low": 3, "focal_px": -1}',
}
for _name, _content in _SIDECARS.items():
    case("2", f"a sidecar that {_name}")(
        lambda folder, content=_content: _photo(folder, "a.jpg", content)  # type: ignore[misc]
    )


# Part 4: sounds


def _tone(hz: float, rate: int = RATE) -> np.ndarray:
    """A tone above a floor of noise, which codecs share where digital silence is their own."""
    plain = tone(hz, rate=rate)
    return (plain + 0.02 * np.random.default_rng(0).standard_normal(len(plain))).astype(np.float32)


def _sound(folder: Path, name: str, content: bytes) -> None:
    path = written(folder, name, content)
    wanted = written(folder, "plain/a.wav", _wav(_tone(HZ)))
    means(path, wanted, written(folder, "plain/b.wav", _wav(_tone(300.0))))


def _both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1)


def _sounds() -> dict[str, tuple[str, Any]]:
    plain = _tone(HZ)
    mp3, aac = sound([plain], "mp3", "libmp3lame"), sound([plain], "adts", "aac")
    wav, apev2 = _wav(plain), b"APETAGEX" + struct.pack("<4I", 2000, 32, 0, 0) + bytes(8)
    junk = bytes(np.random.default_rng(0).integers(0, 255, 3000, np.uint8))
    riff = (
        b"RIFF" + struct.pack("<I", len(mp3) + 50) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 30, 0x55, 1, RATE, 8000, 1, 0)
        + struct.pack("<HHIHHH", 12, 1, 2, 313, 1, 1393) + b"data" + struct.pack("<I", len(mp3)) + mp3
    )  # fmt: skip
    return {
        "MP3 behind an APEv2 tag": ("a.mp3", apev2 + mp3),
        "MP3 behind zeros": ("a.mp3", bytes(100_000) + mp3),
        "MP3 behind junk": ("a.mp3", junk + mp3),
        "MP3 behind two ID3 tags": ("a.mp3", _id3(500) + _id3(300_000) + mp3),
        "MP3 that announces no length, behind a large tag": (
            "a.mp3",
            _id3(30_000) + mp3[mp3.index(b"\xff", max(mp3.find(b"Xing"), mp3.find(b"Info"))) :],
        ),
        "MP3 in a WAV": ("a.wav", riff),
        "AAC behind an ID3 tag": ("a.aac", _id3(3000) + aac),
        "FLAC behind an ID3 tag": ("a.flac", _id3(3000) + _wav(plain, "FLAC")),
        "WAV with sizes of 0": ("a.wav", wav[:4] + bytes(4) + wav[8:40] + bytes(4) + wav[44:]),
        "WAV with sizes of 0xFFFFFFFF": ("a.wav", wav[:40] + b"\xff" * 4 + wav[44:]),
        "W64": ("a.w64", _wav(plain, "W64")),
        "SPHERE": ("a.wav", _wav(plain, "NIST")),
        "VOC": ("a.voc", _wav(plain, "VOC")),
        "WavPack": ("a.wv", sound([plain], "wv", "wavpack")),
        "TTA": ("a.tta", sound([plain], "tta", "tta")),
        "AC-3": ("a.ac3", sound([_tone(HZ, 48_000)], "ac3", "ac3", rate=48_000)),
        "a sound of another name (AAC called .mp3)": ("a.mp3", aac),
        "stereo in opposite phase": ("a.wav", _wav(_both(plain, -plain))),
        "stereo in opposite phase, FLAC": ("a.flac", _wav(_both(plain, -plain), "FLAC")),
        "stereo nearly in opposite phase": ("a.wav", _wav(_both(plain, -0.97 * plain))),
        "sound only in .webm": ("a.webm", sound([_tone(HZ, 48_000)], "webm", "libopus", rate=48_000)),
        "sound only in .mp4": ("a.mp4", sound([plain], "mp4", "aac")),
        "sound only in .3gp": ("a.3gp", sound([plain], "3gp", "aac")),
        "sound only in .mkv": ("a.mkv", sound([plain], "matroska", "flac")),
        "sound only in .ts": ("a.ts", sound([plain], "mpegts", "aac")),
    }


def _heard(name: str) -> Any:
    return lambda folder: _sound(folder, *_sounds()[name])


for _name in (
    *("MP3 behind an APEv2 tag", "MP3 behind zeros", "MP3 behind junk", "MP3 behind two ID3 tags"),
    *("MP3 that announces no length, behind a large tag", "MP3 in a WAV", "AAC behind an ID3 tag"),
    *("FLAC behind an ID3 tag", "WAV with sizes of 0", "WAV with sizes of 0xFFFFFFFF", "W64", "SPHERE", "VOC"),
    *("WavPack", "TTA", "AC-3", "a sound of another name (AAC called .mp3)", "stereo in opposite phase"),
    *("stereo in opposite phase, FLAC", "stereo nearly in opposite phase", "sound only in .webm"),
    *("sound only in .mp4", "sound only in .3gp", "sound only in .mkv", "sound only in .ts"),
):
    case("4", _name)(_heard(_name))


@case("4", "a film whose first sound track is silent and not the default one")
def _default_track(folder: Path) -> None:
    content = sound([0 * tone(HZ), _tone(HZ)], "matroska", "aac", default=1, pictures="libx264")
    path = written(folder, "a.mkv", content)
    means(path, written(folder, "a.wav", _wav(_tone(HZ))), written(folder, "b.wav", _wav(_tone(300.0))), "audio")


# Part 4: films


_SIZES = {"a.dv": (576, 768), "a.mxf": (144, 192)}


def _film(folder: Path, name: str, content: bytes) -> None:
    plain = written(folder, "plain/a.mp4", film(noise(1, *_SIZES.get(name, (64, 64)))))
    means(written(folder, name, content), plain, written(folder, "plain/b.mp4", film(noise(2))), "video")


_FILMS = {
    "AVCHD (.MTS)": ("a.MTS", lambda: _avchd(film(noise(1), "mpegts"))),
    "MPEG-TS (.m2t)": ("a.m2t", lambda: film(noise(1), "mpegts")),
    "MXF": ("a.mxf", lambda: film(noise(1, 144, 192), "mxf", "mpeg2video", frames=25)),
    "DV": ("a.dv", lambda: film(noise(1, 576, 720), "dv", "dvvideo", frames=25)),
    "Matroska": ("a.mkv", lambda: film(noise(1), "matroska")),
}


def _avchd(stream: bytes) -> bytes:
    return b"".join(bytes(4) + stream[at : at + 188] for at in range(0, len(stream), 188))


for _name, (_file, _made) in _FILMS.items():
    case("4", _name)(lambda folder, file=_file, made=_made: _film(folder, file, made()))  # type: ignore[misc]


@case("4", "a film with pixels of 2:1")
def _wide_pixels(folder: Path) -> None:
    wide = noise(1, 64, 128)
    path = written(folder, "a.mp4", film(wide[:, ::2], aspect=Fraction(2)))
    means(
        path,
        written(folder, "plain/a.mp4", film(wide)),
        written(folder, "plain/b.mp4", film(wide[:, ::2])),
        "video",
    )


# Part 4: pictures


def _seen(folder: Path, name: str, content: bytes) -> None:
    plain = written(folder, "plain/a.png", _picture("PNG", noise(1, 256, 256)))
    means(written(folder, name, content), plain, written(folder, "plain/b.png", _picture("PNG", noise(2, 256, 256))))


def _raw(magic: bytes) -> bytes:
    return magic + bytes(500) + _picture("JPEG", noise(1, 256, 256), quality=95)


def _heic() -> bytes:
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(noise(1, 256, 256))).save(out, quality=95)
    return out.getvalue()


def _jxl() -> bytes:
    from pillow_jxl import JpegXLImagePlugin  # adds its format to Pillow

    assert JpegXLImagePlugin
    return _picture("JXL", noise(1, 256, 256), quality=95)


def _psd() -> bytes:
    planes = noise(1, 256, 256).transpose(2, 0, 1).tobytes()
    head = b"8BPS" + b"\0\1" + bytes(6) + b"\0\3" + (256).to_bytes(4) + (256).to_bytes(4) + b"\0\x08\0\3"
    return head + bytes(12) + b"\0\0" + planes


def _svg() -> bytes:
    squares = "".join(
        f'<rect x="{64 * (n % 4)}" y="{64 * (n // 4)}" width="64" height="64" fill="rgb{tuple(map(int, colour))}"/>'
        for n, colour in enumerate(noise(1, 4, 4).reshape(16, 3))
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256">{squares}</svg>'.encode()


_PICTURES = {
    "HEIC": ("a.heic", _heic),
    "JPEG XL": ("a.jxl", _jxl),
    "Photoshop": ("a.psd", _psd),
    "SVG": ("a.svg", _svg),
    "raw of a camera (RAF)": ("a.raf", lambda: _raw(b"FUJIFILMCCD-RAW 0201")),
    "raw of a camera (CR3)": ("a.cr3", lambda: _raw(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom")),
    "raw of a camera (CRW)": ("a.crw", lambda: _raw(b"II\x1a\0\0\0HEAPCCDR")),
    "PNM": ("a.ppm", lambda: b"P6\n256 256\n255\n" + noise(1, 256, 256).tobytes()),
    "motion photo": (
        "a.jpg",
        lambda: _picture("JPEG", noise(1, 256, 256), quality=95) + film(noise(2, 256, 256), frames=120),
    ),
}
for _name, (_file, _made) in _PICTURES.items():
    case("4", _name)(lambda folder, file=_file, made=_made: _seen(folder, file, made()))  # type: ignore[misc]


@case("4", "PDF page")
def _pdf(folder: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(noise(1, 256, 256)).save(out, "PDF", quality=95)
    _seen(folder, "a.pdf", out.getvalue())


def _depth_png(metres: np.ndarray, scale: float) -> bytes:
    return _picture("PNG", (metres * scale).round().astype(np.uint16))


def _depth(folder: Path, content: bytes, sidecar: dict[str, Any], name: str = "a.depth.png") -> None:
    metres = np.linspace(0.5, 9, 64 * 64).reshape(64, 64)
    path = written(folder, name, content)
    written(folder, f"{name}.json", json.dumps(sidecar))
    wanted = written(folder, "plain/a.depth.png", _depth_png(metres, 1000))
    written(folder, "plain/a.depth.png.json", '{"unit": "mm"}')
    means(path, wanted, written(folder, "plain/b.depth.png", _depth_png(metres[::-1], 1000)), "depth")
    vectors = model().embed([path, wanted], modality="depth").vectors
    assert np.abs(vectors[0] - vectors[1]).max() < 0.01, "other metres"


for _name, _scale in (("TUM RGB-D", 5000.0), ("KITTI", 256.0)):
    case("4", f"depth of {_name} (`scale`)")(
        lambda folder, scale=_scale: _depth(  # type: ignore[misc]
            folder, _depth_png(np.linspace(0.5, 9, 64 * 64).reshape(64, 64), scale), {"scale": scale}
        )
    )


@case("4", "depth without metres (`relative`)")
def _relative(folder: Path) -> None:
    metres = np.linspace(0.5, 10, 64 * 64).reshape(64, 64)
    levels = ((metres - 0.5) / 9.5 * 255).round().astype(np.uint8)
    path = written(folder, "a.depth.png", _picture("PNG", levels))
    written(folder, "a.depth.png.json", '{"unit": "relative"}')
    wanted = written(folder, "plain/a.depth.png", _depth_png(metres, 1000))
    means(path, wanted, written(folder, "plain/b.depth.png", _depth_png(metres[::-1], 1000)), "depth")


# Part 4: texts

_TEXTS = {
    "with a byte order mark": ("Ein Hund am Strand, daneben ein Kind", "utf-8-sig"),
    "in UTF-16": ("Ein Hund am Strand, daneben ein Kind", "utf-16"),
    "in UTF-16 without a mark": ("Ein Hund am Strand, daneben ein Kind", "utf-16-le"),
    "in Windows-1252": ("Ein süßes Hündchen überquert die Straße", "cp1252"),
    "in Windows-1251": ("Сегодня я видел собаку на пляже у моря.", "cp1251"),  # noqa: RUF001
    "in Shift-JIS": ("海のそばの浜辺で犬が走っています。今日は天気がいいです。", "cp932"),
    "in GB 18030": ("今天我在海边的沙滩上看到一只狗。天气很好。", "gb18030"),
}
for _name, (_words, _encoding) in _TEXTS.items():
    case("4", f"text {_name}")(
        lambda folder, words=_words, encoding=_encoding: means(  # type: ignore[misc]
            written(folder, "a.txt", words.encode(encoding)),
            written(folder, "b.txt", words),
            written(folder, "c.txt", "three grey cats in a garden of roses"),
        )
    )


@case("4", "the reason names the format (an office document called .mp3)")
def _named(folder: Path) -> None:
    reason = "none: it was read"
    try:
        cosine(written(folder, "a.mp3", b"PK\3\4" + bytes(5000)), "text:x")
    except ValueError as error:
        reason = str(error).rpartition("/")[2]
    assert "ZIP" in reason, reason
