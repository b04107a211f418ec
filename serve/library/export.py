"""Lists of files and hits as text: paths, CSV or JSON, and copies of their files in a folder."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from preprocess.files import open_regular
from serve.library.items import Item
from serve.library.text import shown

Format = Literal["paths", "csv", "json"]
COLUMNS = (
    "id", "path", "name", "kind", "modality", "date", "size_bytes", "start_s", "end_s", "caption", "camera", "place",
    "favourite", "score", "probability",
)  # fmt: skip
"""The columns of a CSV; a cell is empty where an entry has no such value."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that spreadsheets take for a formula (OWASP, CSV injection)."""


def part(items: Iterable[Item], form: Format, is_first: bool = True, is_last: bool = True) -> str:
    r"""Files or hits -> their text in a format; a long list is written in parts, of which the first and last say so.

    Paths stand one a line; a path that holds a line break is written with `\n` in its place. In a CSV, a text that a
    spreadsheet would take for a formula has an apostrophe before it, because names may come from strangers.
    """
    if form == "paths":
        return "".join(f"{one_line(item.path)}\n" for item in items)
    if form == "csv":
        rows = [COLUMNS] if is_first else []
        return "".join(map(_row, [*rows, *([_cell(row_of(item).get(name)) for name in COLUMNS] for item in items)]))
    entries = [json.dumps(row_of(item), default=str) for item in items]
    between = ",\n" if entries and not is_first else ""
    return ("[" if is_first else between) + ",\n".join(entries) + ("]\n" if is_last else "")


def one_line(path: str) -> str:
    """A path -> the path without line breaks."""
    return path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") if {"\n", "\r"} & set(path) else path


def row_of(item: Item) -> dict[str, Any]:
    """A file or hit -> its values by name, as JSON has them."""
    values = dict(item.__dict__)
    values["id"] = values.pop("item_id")
    values["path"], values["also"] = shown(item.path), [shown(path) for path in item.also]
    values["name"] = os.path.basename(values["path"])
    values.setdefault("kind", item.modality)
    values.pop("lines", None)
    return values | {name: item.metadata.get(name) for name in ("caption", "camera", "place")}


def copy_to(items: Iterable[Item], folder: Path) -> list[tuple[str, Path | str]]:
    """Copies the files of items into a folder, which is made -> (path, its copy, or the reason why there is none).

    No file is overwritten: a name that is taken gets a number. Links are not followed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: dict[str, Path | str] = {}
    for item in items:
        if item.path in done:
            continue
        try:
            with os.fdopen(open_regular(item.path), "rb") as source:
                target = _new_file(folder, os.path.basename(item.path))
                with open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy, 2**20)
            done[item.path] = target
        except OSError as error:
            done[item.path] = str(error.strerror or error)
    return list(done.items())


def _new_file(folder: Path, name: str) -> Path:
    """Makes an empty file of this name, or with a number behind its stem where the name is taken."""
    stem, suffix = os.path.splitext(name)
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        try:
            path.open("xb").close()
        except FileExistsError:
            number += 1
        else:
            return path


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else json.dumps(value)
    text = shown(text) if isinstance(value, str) else text
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _row(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
