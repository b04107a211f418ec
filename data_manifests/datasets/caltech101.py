"""Caltech-101: 9,146 pictures of 101 kinds of things and a background class (Fei-Fei et al., 2004)."""

from __future__ import annotations

from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split
from data_manifests.shared.templates import PHOTO

_FOLDERS = ("101_ObjectCategories", "caltech-101/101_ObjectCategories", ".")
"""Where the categories lie: the inner archive unpacked here, where the outer one has it, or the folder itself."""
_LEFT_OUT = {"BACKGROUND_Google", "Faces_easy"}
"""Folders that are left out: one has clutter, the other has the pictures of `Faces`, cut closer."""
_NAMES = {
    "Faces": "human face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "buddha": "buddha statue",
    "car_side": "car seen from the side",
    "cougar_body": "cougar",
    "cougar_face": "face of a cougar",
    "crocodile_head": "head of a crocodile",
    "flamingo_head": "head of a flamingo",
}
"""Folder -> the words that a person would use, where the folder's name differs from them."""


def splits(download: Download) -> Iterator[Split]:
    """One manifest: the data set has no official splits. The folders BACKGROUND_Google and Faces_easy are left out."""
    folder = next((name for name in _FOLDERS if (download.path / name / "accordion").is_dir()), None)
    if folder is None:
        download.lacks("folder", f"{_FOLDERS[0]}/accordion")
        return
    prefix = "" if folder == "." else f"{folder}/"
    places = [path for path in (download.path / folder).iterdir() if path.is_dir() and path.name not in _LEFT_OUT]
    names = {path.name: _NAMES.get(path.name, path.name.replace("_", " ").lower()) for path in sorted(places)}

    def events() -> Iterator[Entry]:
        for kind, name in names.items():
            last = max((path.stem for path in (download.path / folder / kind).glob("image_*.jpg")), default="image_0")
            for number in range(1, int(last.removeprefix("image_")) + 1):  # pictures are numbered without gaps
                path = f"{prefix}{kind}/image_{number:04d}.jpg"
                if download.has(path, "picture"):
                    yield {
                        "id": f"{kind}/image_{number:04d}",
                        "image": {"path": path},
                        "text": f"a photo of {_article(name)} {name}",
                        "labels": [name],
                    }

    yield Split("", events(), sorted(names.values()), PHOTO)


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" and name != "euphonium" else "a"


BUILDER = Builder(
    title="Caltech 101 without background and Faces_easy.",
    license="CC BY 4.0 (its compilers, CaltechDATA); the pictures were found by web search",
    obtain="the record 'Caltech 101' on CaltechDATA: caltech-101.zip, and 101_ObjectCategories.tar.gz in it unpacked",
    layout="101_ObjectCategories/KIND/image_*.jpg",
    splits=splits,
)
