"""HIT-UAV: 2,898 thermal pictures from drones, people and vehicles boxed (Suo et al., 2023)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from data_manifests import Builder, Download, Entry, Split

_NAMES = {
    "Person": ("person", "people"),
    "Car": ("car", "cars"),
    "Bicycle": ("bicycle", "bicycles"),
    "OtherVehicle": ("truck or bus", "trucks or buses"),
}
"""Class of a box -> words for one and for several. Boxes of the class `DontCare` are left out."""
_NUMBERS = ("no", "one", "two", "three", "four", "five")
"""Words for counts; six and more are `many`."""
_TIMES = {"0": "by day", "1": "at night"}
"""The first number in a picture's name -> words."""
_TEMPLATES = ("a thermal picture from a drone, with {}", "{}")
"""Sentences for the names of classes."""


def splits(download: Download) -> Iterator[Split]:
    """train (2,008), val (287) and test (571); sentences are made from the boxes.

    Neighbouring frames are near-duplicates: the time of day and the hundred of the frame's number are the group.
    """
    for split in ("train", "val", "test"):
        table = f"normal_json/annotations/{split}.json"
        if download.has(table, "annotation"):
            classes = [one for one, _ in _NAMES.values()]
            yield Split(split, _events(download, split, table), classes, _TEMPLATES)


def _events(download: Download, split: str, table: str) -> Iterator[Entry]:
    content = download.json(table)
    names = {kind["id"]: kind["name"] for kind in content["categories"]}
    boxes: dict[int, Counter[str]] = defaultdict(Counter)
    for box in content["annotation"]:
        if names.get(box["category_id"]) in _NAMES:
            boxes[box["image_id"]][names[box["category_id"]]] += 1
    for picture in content["images"]:
        name = picture["filename"]
        path = f"normal_json/{split}/{name}"
        if not download.has(path, "picture"):
            continue
        found = boxes[picture["id"]].most_common()
        sentence = _listed([_counted(kind, count) for kind, count in found]) or "nobody and nothing that moves"
        stem = name.removesuffix(".jpg")
        time, *_, frame = stem.split("_")
        yield {
            "id": stem,
            "thermal": {"path": path},
            "text": [f"a thermal picture from a drone {_TIMES[time]}, with {sentence}", sentence],
            "labels": [_NAMES[found[0][0]][0]] if found else [],
            "group": f"{time}_{int(frame) // 100:03d}",
        }


def _counted(kind: str, count: int) -> str:
    one, several = _NAMES[kind]
    return f"{_NUMBERS[count] if count < len(_NUMBERS) else 'many'} {one if count == 1 else several}"


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


BUILDER = Builder(
    title="HIT-UAV, thermal pictures from drones; sentences made from the boxes.",
    license="CC BY 4.0",
    obtain="the release v1.2.1 of suojiashun/HIT-UAV-Infrared-Thermal-Dataset on GitHub: HIT-UAV.zip",
    layout="normal_json/annotations/{train,val,test}.json and normal_json/{train,val,test}/*.jpg",
    splits=splits,
)
