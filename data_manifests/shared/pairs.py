"""Layouts that several data sets have: pictures with sentences, and photographs with thermal pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from data_manifests import BuildError, Download, Entry

_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
"""Suffixes of pictures; lists and annotations lie beside them."""


def captions(download: Download, table: str) -> dict[str, list[str]]:
    """A table of lines `NAME.jpg#NUMBER<tab>sentence` -> the sentences of each picture, in the order of the table.

    Lines without a tab or a sentence are recorded as missing. Raises BuildError where the table is not UTF-8.
    """
    found: dict[str, list[str]] = defaultdict(list)
    try:
        lines = (download.path / table).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BuildError(f"{download.path / table}: is not UTF-8: {error}") from None
    for number, line in enumerate(lines, 1):
        name, _, sentence = line.partition("\t")
        if sentence.strip():
            found[name.split("#")[0]].append(sentence.strip())
        elif line.strip():
            download.lacks(f"sentence in {table}", f"line {number}")
    return found


def with_sentences(
    download: Download, folder: str, sentences: dict[str, list[str]], names: list[str]
) -> Iterator[Entry]:
    """Names of pictures in a folder -> one event for each, with all its sentences."""
    for name in names:
        path = f"{folder}/{name}"
        if name not in sentences:
            download.lacks("sentences", name)
        elif download.has(path, "picture"):
            stem = PurePosixPath(name).stem
            yield {"id": stem, "image": {"path": path}, "text": sentences[name], "group": stem}


def thermal_pairs(download: Download, visible: str, infrared: str, grouped: int | None = None) -> Iterator[Entry]:
    """Two folders with pictures of the same names -> image + thermal events.

    The group of an event is the first `grouped` letters of its name, or the whole name.
    """
    place = download.path / infrared
    if not place.is_dir():
        download.lacks("folder", infrared)
        return
    for path in sorted(place.iterdir()):
        if path.suffix.lower() not in _PICTURES:
            continue
        pair = f"{visible}/{path.name}", f"{infrared}/{path.name}"
        if download.has(pair[0], "visible picture") and download.has(pair[1], "infrared picture"):
            yield {
                "id": path.stem,
                "image": {"path": pair[0]},
                "thermal": {"path": pair[1]},
                "group": path.stem[:grouped] if grouped else path.stem,
            }
