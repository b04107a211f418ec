from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import skimage
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from preprocess.decoding.protocol import read_here
from preprocess.readers.depth import DepthConfig, prepare, read, read_depth_m, shape
from preprocess.source import Hints, Limits, MediaError, Source
from tests.preprocess.made import check_that_cut_files_are_refused, check_that_unusable_paths_are_refused, npy, tiff

CONFIG = DepthConfig()
LIMITS = Limits()
FOCAL_BASELINE = 518.857901 * 0.075  # of the default camera

# A slope from 1 to 7 m, in whole millimetres.
DEPTH_M = np.rint(np.linspace(1000, 7000, 60 * 80).reshape(60, 80)).astype(np.float32) / 1000
DEPTH_MM = np.rint(DEPTH_M * 1000).astype(np.uint16)


def view(content: object, hints: Hints = Hints(), config: DepthConfig = CONFIG) -> np.ndarray:  # noqa: B008 (frozen)
    return read_here(read, Source(content, "x", hints), config, LIMITS, "whole")[0].views[0]


def depth_m(content: object, hints: Hints = Hints()) -> np.ndarray:  # noqa: B008 (frozen)
    return read_depth_m(Source(content, "x", hints), LIMITS)[0]


def picture(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def exr(folder: Path, channels: dict[str, np.ndarray]) -> bytes:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: np.ascontiguousarray(c) for name, c in channels.items()}).write(str(folder / "x.exr"))
    return (folder / "x.exr").read_bytes()


ROTATED = (DEPTH_MM << 3) | (DEPTH_MM >> 13)


@pytest.mark.parametrize(
    ("content", "hints"),
    [
        (picture(DEPTH_MM, "PNG"), Hints()),
        (picture(DEPTH_MM, "TIFF"), Hints(unit="mm")),
        (picture(ROTATED, "PNG"), Hints(unit="sunrgbd")),
        (picture(DEPTH_M, "TIFF"), Hints()),
        (tiff(DEPTH_M, compression="zlib"), Hints()),
        (tiff(DEPTH_M, compression="zlib", byteorder=">"), Hints()),  # Pillow alone reads this one wrongly
        (tiff(DEPTH_M.astype(np.float64)), Hints()),
        (tiff(DEPTH_MM, byteorder=">"), Hints()),
        (tiff(DEPTH_MM.astype(np.uint32)), Hints()),
        (npy(DEPTH_M), Hints()),
        (npy(DEPTH_M.astype(">f8")), Hints(unit="m")),
        (npy(np.asfortranarray(DEPTH_M)), Hints()),
        (npy(DEPTH_M[None]), Hints()),
        (npy(DEPTH_M[..., None]), Hints()),
        (npy(DEPTH_MM.astype(np.int64)), Hints()),
        (npy(1 / DEPTH_M), Hints(unit="disparity")),
        (npy(600 * 0.1 / DEPTH_M), Hints(unit="disparity_px", focal_px=600, baseline_m=0.1)),
        (DEPTH_M, Hints()),
        (DEPTH_MM, Hints()),
        (Image.fromarray(DEPTH_M), Hints()),
    ],
)
def test_every_source_gives_the_same_metres(content: object, hints: Hints) -> None:
    got = depth_m(content, hints)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, DEPTH_M, rtol=2e-7)


def test_exr_channels(tmp_path: Path) -> None:
    for names in ("Z", "depth", "Y", "R", "RGB", "ViewLayer.Depth.Z"):
        channels = dict.fromkeys(names, DEPTH_M) if names == "RGB" else {names: DEPTH_M}
        assert (depth_m(exr(tmp_path, channels)) == DEPTH_M).all(), names
    np.testing.assert_allclose(depth_m(exr(tmp_path, {"Z": DEPTH_M.astype(np.float16)})), DEPTH_M, rtol=1e-3)
    assert (depth_m(Path(tmp_path / "x.exr")) > 0).all()
    with pytest.raises(MediaError, match="got U"):
        depth_m(exr(tmp_path, {"U": DEPTH_M}))
    with pytest.raises(MediaError, match="colour"):
        depth_m(exr(tmp_path, {"R": DEPTH_M, "G": DEPTH_M * 2, "B": DEPTH_M}))
    with pytest.raises(MediaError, match="max_pixels"):
        read_depth_m(Source(exr(tmp_path, {"Z": DEPTH_M}), "x"), Limits(max_pixels=60 * 80 - 1))


def test_sun_rgbd_depth_is_clamped_at_8_m() -> None:
    assert depth_m(picture(np.full((4, 4), 9000 << 3, np.uint32).astype(np.uint16), "PNG"), Hints(unit="mm")).max() < 9
    far = np.full((4, 4), (9000 << 3 | 9000 >> 13) & 0xFFFF, np.uint16)
    assert (depth_m(picture(far, "PNG"), Hints(unit="sunrgbd")) == 8).all()


def test_reference_formula_and_normalisation() -> None:
    tensor = prepare(view(np.full((48, 64), 2.0))[None], CONFIG)
    assert tensor.shape == (1, *shape(CONFIG))
    assert tensor.dtype == torch.float32
    expected = (FOCAL_BASELINE / 2 / 75 - 0.0418) / 0.0295
    assert tensor.numpy() == pytest.approx(np.full(tensor.shape, expected), rel=1e-5)
    # Hints of another camera, and both ends of the range.
    assert view(np.full((9, 9), 2.0), Hints(focal_px=600, baseline_m=0.1)) == pytest.approx(np.full((224, 224), 30.0))
    ends = view(np.repeat([[0.001, 90.0]], 2, axis=0), config=DepthConfig(size=2))
    assert ends[0] == pytest.approx([75.0, FOCAL_BASELINE / 50], rel=1e-5)


@pytest.mark.parametrize("size", [(480, 640), (427, 561), (30, 47), (1, 1)])
def test_equals_the_reference_pipeline(size: tuple[int, int]) -> None:
    depth = np.random.default_rng(0).uniform(0.3, 12, size).astype(np.float32)
    disparity = torch.from_numpy(np.float32(FOCAL_BASELINE) / depth).clamp(0.01, 75)[None]
    got = prepare(view(depth)[None], CONFIG)[0]
    for antialias in (True, False):
        resized = F.center_crop(F.resize(disparity, 224, InterpolationMode.BILINEAR, antialias=antialias), 224)
        close = torch.allclose(got, (resized / 75 - 0.0418) / 0.0295, atol=2e-4)
        # Negative control: without antialias a shrunk map is another one.
        assert close == (antialias or min(size) < 224)


def test_defaults_do_not_depend_on_the_resolution_and_are_noted() -> None:
    large = np.repeat(np.repeat(DEPTH_M, 8, axis=0), 8, axis=1)
    assert np.abs(view(large) - view(DEPTH_M)).mean() < 0.1
    notes = read(Source(DEPTH_MM, "x"), CONFIG, LIMITS, "segments")[0].notes
    assert [note.split(":")[0] for note in notes] == ["unit assumed", "focal length assumed", "baseline assumed"]
    known = Hints(unit="mm", focal_px=500, baseline_m=0.1)
    assert read(Source(DEPTH_MM, "x", known), CONFIG, LIMITS, "whole")[0].notes == ()


@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_holes_take_the_nearest_depth_and_are_noted(hole: float) -> None:
    values = np.repeat([[1.0, 2.0, 3.0, 4.0]], 5, axis=0)
    values[:, 0] = hole
    values[2, 3] = hole
    filled, notes = read_depth_m(Source(values, "x", Hints(unit="m")), LIMITS)
    assert (filled[:, 0] == 2).all()
    assert filled[2, 3] in (3, 4)
    assert notes == ("holes filled from the nearest valid pixel (30.00% of the picture)",)
    with pytest.raises(MediaError, match="no valid pixel"):
        depth_m(np.full((4, 4), hole))


def test_middlebury_disparities_keep_their_pixels() -> None:
    disparity = np.load(Path(skimage.__file__).parent / "data" / "motorcycle_disp.npz")["arr_0"].astype(np.float32)
    hints = Hints(unit="disparity_px", focal_px=994.978, baseline_m=0.193001)
    metres, notes = read_depth_m(Source(disparity, "motorcycle", hints), LIMITS)
    assert "holes filled" in notes[0]
    assert np.isfinite(metres).all()
    assert 2 < np.median(metres) < 20
    valid = np.isfinite(disparity) & (disparity > 0)
    np.testing.assert_allclose(994.978 * 0.193001 / metres[valid], disparity[valid], rtol=1e-5)
    got = view(disparity, hints)
    assert disparity[valid].min() - 0.01 <= got.min() < got.max() <= min(75, disparity[valid].max()) + 0.01


@pytest.mark.parametrize(
    ("content", "hints", "reason"),
    [
        (picture(np.zeros((9, 9, 3), np.uint8), "PNG"), Hints(), "colour"),
        (picture(np.ones((9, 9), np.uint8), "PNG"), Hints(), "8-bit.*hint `unit`"),
        (np.zeros((2, 9, 9), np.float32), Hints(), r"expected an array \(height, width\)"),
        (npy(np.zeros((9, 9), bool)), Hints(), "expected an array"),
        (npy(np.zeros((9, 9), complex)), Hints(), "expected an array"),
        (npy(np.zeros((0, 9))), Hints(), "no pixels"),
        (npy(np.zeros((3, 3), "O")), Hints(), "expected an array"),
        (npy(np.zeros(9, [("z", "f4")])), Hints(), "expected an array"),
        (npy(DEPTH_M), Hints(unit="celsius"), "expected a depth unit"),
        (npy(DEPTH_M), Hints(unit="sunrgbd"), "16-bit"),
        (npy(DEPTH_M), Hints(unit="disparity_px"), "needs the hints"),
        (npy(DEPTH_M), Hints(unit="disparity_px", focal_px=0, baseline_m=1), "positive"),
        (npy(DEPTH_M), Hints(focal_px=-1.0), "positive"),
        (npy(DEPTH_M), Hints(baseline_m=float("nan")), "positive"),
        (npy(DEPTH_M * 1000), Hints(), r"no pixel lies within 0\.01\.\.50 m .*`unit`"),
        (tiff(np.full((9, 9), 2**40)), Hints(), "int32"),
        ("a sentence", Hints(), "expected a path or bytes"),
        (b"PK\3\4" + bytes(60), Hints(), "not supported"),
        (b"RIFF\0\0\0\0WAVEfmt ", Hints(), "expected a picture"),
    ],
)
def test_bad_input_is_a_media_error(content: object, hints: Hints, reason: str) -> None:
    with pytest.raises(MediaError, match=rf"^x: (?s:.*){reason}"):
        view(content, hints)


def test_npy_headers_that_promise_too_much_are_refused_before_memory_is_taken() -> None:
    def promise(height: int, width: int) -> bytes:
        buffer = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (height, width)}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue() + bytes(100)

    with pytest.raises(MediaError, match=r"30,000 x 30,000 pixels.*max_pixels"):
        view(promise(30_000, 30_000))
    with pytest.raises(MediaError, match="truncated: 399,999,900 of its bytes are missing"):
        view(promise(10_000, 10_000))


@pytest.mark.parametrize("kind", ["png", "npy", "exr", "tiff", "tiff64"])
def test_truncated_files_are_media_errors(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(1, 9, (61, 67)).astype(np.float32)
    data = {
        "png": lambda: picture((values * 1000).astype(np.uint16), "PNG"),
        "npy": lambda: npy(values),
        "exr": lambda: exr(tmp_path, {"Z": values}),
        "tiff": lambda: tiff(values),
        "tiff64": lambda: tiff(values.astype(np.float64), compression="zlib"),
    }[kind]()
    check_that_cut_files_are_refused(read, CONFIG, data, kind[:4])


def test_missing_files_directories_and_wrong_names_are_media_errors(tmp_path: Path) -> None:
    check_that_unusable_paths_are_refused(read, CONFIG, tmp_path / "depth.png", npy(DEPTH_M))


def test_sidecar_gives_the_unit(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy(DEPTH_MM.astype(np.float32)))
    (tmp_path / "x.npy.json").write_text('{"unit": "mm"}')
    np.testing.assert_allclose(read_depth_m(Source.from_path(tmp_path / "x.npy"), LIMITS)[0], DEPTH_M, rtol=2e-7)


def test_wrong_views_are_value_errors() -> None:
    with pytest.raises(ValueError, match=r"\('K', 224, 224\) float32"):
        prepare(np.zeros((1, 224, 224)), CONFIG)


@pytest.mark.parametrize("scale", [5000, 256])
def test_scale_is_units_a_metre(scale: int) -> None:
    metres = np.linspace(0.5, 8, 400, dtype=np.float32).reshape(20, 20)
    source = Source((metres * scale).round().astype(np.uint16), "x", Hints(scale=scale))
    found, notes = read_depth_m(source, LIMITS)
    np.testing.assert_allclose(found, metres, atol=0.5 / scale + 1e-6)
    assert not [note for note in notes if "assumed" in note]


def test_maps_without_a_unit_are_laid_on_a_room() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    near_first, _ = read_depth_m(Source(values, "x", Hints(unit="relative")), LIMITS)
    assert (near_first.min(), near_first.max()) == (0.5, 10)
    assert (np.diff(near_first.ravel()) > 0).all()
    far_first, _ = read_depth_m(Source(values, "x", Hints(unit="relative_inverse")), LIMITS)
    np.testing.assert_allclose([far_first.max(), far_first.min()], [10, 0.5], rtol=1e-5)
    assert (np.diff(far_first.ravel()) < 0).all()


def test_three_channels_of_carla() -> None:
    code = np.array([[1_000_000, 16_777_215], [65_536, 8_000_000]])
    rgb = np.stack([code & 255, code >> 8 & 255, code >> 16], 2).astype(np.uint8)
    found, _ = read_depth_m(Source(rgb, "x", Hints(unit="carla")), LIMITS)
    np.testing.assert_allclose(found, code * 1000 / (256**3 - 1), rtol=1e-5)


@pytest.mark.parametrize(("name", "is_depth"), [("room.depth.png", True), ("room_depth.png", False), ("x.png", False)])
def test_grey_of_8_bits_is_relative_where_its_name_says_depth_exactly(name: str, is_depth: bool) -> None:
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 255, 48 * 64).astype(np.uint8).reshape(48, 64)).save(out, "PNG")
    source = Source(out.getvalue(), name)
    if not is_depth:
        with pytest.raises(MediaError, match="8-bit"):
            read_depth_m(source, Limits())
        return
    found, notes = read_depth_m(source, Limits())
    assert np.isclose(found[[0, -1], [0, -1]], [0.5, 10]).all()
    assert "relative" in notes[0]
