"""TNO Image Fusion: aligned visible and thermal pictures of military scenes, several cameras (Toet, 2014)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_manifests import Builder, Download, Entry, Split

_ROOTS = ("TNO_Image_Fusion_Dataset", ".")
"""Where the sequences lie: in the unpacked archive's folder, or in the folder itself."""
_PICTURES = {".bmp", ".tif", ".tiff", ".png", ".jpg"}
"""Suffixes of pictures; tables and texts lie beside them."""
_SIDES = {"thermal": "thermal", "visual": "visible", "dhv": "visible"}
"""Folders that hold one side of a sequence."""
# IR_meting003_g.bmp, LWIR.tif, RAD01.bmp, 1823i.bmp against VIS_meting003_r.bmp, Vis.tif, DHV01.bmp, 1823v.bmp. NIR
# (near infrared: reflected light) is neither.
_THERMAL = re.compile(r"(^|[^a-z])(lwir|ir|rad)(?![a-z])|\di$", re.IGNORECASE)
_VISIBLE = re.compile(r"(^|[^a-z])(vis|dhv)(?![a-z])|\dv$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


def splits(download: Download) -> Iterator[Split]:
    """One manifest; a folder of the download is a scene, and the group."""
    root = next((name for name in _ROOTS if (download.path / name / "Athena_images").is_dir()), None)
    if root is None:
        download.lacks("folder", f"{_ROOTS[0]}/Athena_images")
        return
    yield Split("", _events(download, download.path / root))


def _events(download: Download, root: Path) -> Iterator[Entry]:
    scenes: dict[str, dict[str, dict[str, list[Path]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in _PICTURES or not path.is_file():
            continue
        folder = path.parent
        side = _SIDES.get(folder.name.lower(), "")
        if side:
            folder = folder.parent
        elif bool(_THERMAL.search(path.stem)) != bool(_VISIBLE.search(path.stem)):
            side = "thermal" if _THERMAL.search(path.stem) else "visible"
        else:
            continue
        numbers = _NUMBER.findall(path.stem)
        scenes[folder.relative_to(root).as_posix()][numbers[-1] if numbers else ""][side].append(path)
    for scene, pictures in scenes.items():
        for number, sides in pictures.items():
            name = f"{scene}/{number}".strip("/")
            if len(sides["thermal"]) != 1 or len(sides["visible"]) != 1:
                download.lacks("one thermal and one visible picture", name)
                continue
            paths = [sides[side][0].relative_to(download.path).as_posix() for side in ("visible", "thermal")]
            if download.has(paths[0], "visible picture") and download.has(paths[1], "infrared picture"):
                yield {"id": name, "image": {"path": paths[0]}, "thermal": {"path": paths[1]}, "group": scene}


BUILDER = Builder(
    title="TNO Image Fusion.",
    license="CC BY 4.0",
    obtain="figshare, 'TNO Image Fusion Dataset' (article 1008029): TNO_Image_Fusion_Dataset.zip",
    layout="TNO_Image_Fusion_Dataset with Athena_images, DHV_images, FEL_images, Triclobs_images, tank",
    splits=splits,
)
