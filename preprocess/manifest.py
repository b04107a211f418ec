"""Manifests: what belongs together. A `.jsonl` of a header line and one line an event; what one event has is paired.

    {"manifest": 1, "name": "clips-train", "root": "clips", "license": "CC-BY-4.0"}
    {"id": "17", "image": {"path": "f/17.jpg"}, "audio": {"path": "w/17.wav", "start_s": 2.0}, "text": "a dog barks"}

Besides modalities, an event may have `labels` (class names) and `group` (events that must stay in one split).
The header may have `classes` (all class names, in order) and `templates` (prompts with one `{}`) for zero-shot. A class
that goes by several names joins them by ` | `, in its labels too.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from preprocess.source import Hints, MediaError, Source

OR = " | "
"""Between the names of one class."""
_HEADER = {"manifest", "name", "root", "license", "about", "classes", "templates"}
"""Keys of a manifest's first line."""
_NOT_MEDIA = {"id", "labels", "group", "text"}
"""Keys of an event that hold no file; every other key is the name of a modality."""
_MOST_ERRORS = 20
"""Faults that one error lists. More would hide the first ones on a terminal; the rest is counted."""


class ManifestError(ValueError):
    """A manifest that breaks the format. The message lists the faults with their line numbers."""


@dataclass(frozen=True)
class Event:
    """What happened at once: `media` holds one source a modality (text too), all of them paired with each other.

    `texts` are all captions; `media["text"]` is the first.
    """

    id: str
    media: Mapping[str, Source]
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest. `sha256` is that of the file, so that a result can name the data it was measured on."""

    name: str
    license: str
    root: Path
    events: tuple[Event, ...]
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    about: str = ""
    sha256: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that at least one event has, in alphabetical order."""
        return tuple(sorted({name for event in self.events for name in event.media}))

    def pairs(self, first: str, second: str) -> tuple[Event, ...]:
        """The events that have both modalities."""
        return tuple(event for event in self.events if first in event.media and second in event.media)


def read(path: str | os.PathLike[str]) -> Manifest:
    """A manifest file -> Manifest; its media are not opened. `root` is relative to the manifest's folder.

    Raises ManifestError with all faults (the first 20, and their number), OSError where it cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    lines = content.split(b"\n")
    faults: list[str] = []
    header = _parsed(lines[0], f"{path.name}:1", faults)
    if header is not None:
        faults.extend(_header_faults(header, f"{path.name}:1"))
    if faults:
        raise ManifestError("\n".join(faults))
    assert header is not None
    root = Path(os.path.abspath(path.parent / header.get("root", ".")))
    events: list[Event] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        entry = _parsed(line, where, faults)
        if entry is None:
            continue
        try:
            event = _event(entry, root, where)
        except MediaError as error:
            faults.append(f"{where}: {error.reason}")
            continue
        if event.id in seen:
            faults.append(f"{where}: id {event.id!r} stands in line {seen[event.id]} too")
        seen[event.id] = number
        events.append(event)
    if faults:
        more = [f"... and {len(faults) - _MOST_ERRORS} more"] if len(faults) > _MOST_ERRORS else []
        raise ManifestError("\n".join(faults[:_MOST_ERRORS] + more))
    return Manifest(
        name=header["name"],
        license=header["license"],
        root=root,
        events=tuple(events),
        classes=tuple(header.get("classes", ())),
        templates=tuple(header.get("templates", ())),
        about=header.get("about", ""),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def write(path: str | os.PathLike[str], header: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> int:
    """Header and events as plain tables -> a manifest file, written aside and moved into place; the number of events.

    Raises ManifestError for a table that `read` would refuse.
    """
    path = Path(path)
    full = {"manifest": 1, **header}
    if faults := list(_header_faults(full, path.name)):
        raise ManifestError("\n".join(faults))
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    count = 0
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(full, ensure_ascii=False) + "\n")
            for entry in events:
                try:
                    _event(entry, path.parent, f"event {entry.get('id')!r}")
                except MediaError as error:
                    raise ManifestError(f"{error.path}: {error.reason}") from None
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                count += 1
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
    return count


def _parsed(line: bytes, where: str, faults: list[str]) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError as error:
        faults.append(f"{where}: not JSON: {error}")
        return None
    if not isinstance(value, dict):
        faults.append(f"{where}: expected an object, got {type(value).__name__}")
        return None
    return value


def _header_faults(header: Mapping[str, Any], where: str) -> Iterator[str]:
    if header.get("manifest") != 1:
        yield f'{where}: expected a header with "manifest": 1, got {header.get("manifest")!r}'
    for key in ("name", "license"):
        if not isinstance(header.get(key), str):
            yield f"{where}: needs {key!r} as text"
    for key in ("classes", "templates"):
        if not _is_texts(header.get(key, [])):
            yield f"{where}: {key!r} must be a list of texts"
    if any(template.count("{}") != 1 for template in header.get("templates", []) if isinstance(template, str)):
        yield f"{where}: each of 'templates' must have one {{}}"
    if unknown := sorted(set(header) - _HEADER):
        yield f"{where}: unknown keys {unknown}; known: {sorted(_HEADER)}"


def _event(entry: Mapping[str, Any], root: Path, where: str) -> Event:
    identity = entry.get("id")
    if not isinstance(identity, str) or not identity:
        raise MediaError(where, f"needs 'id' as text, got {identity!r}")
    texts = entry.get("text", [])
    texts = [texts] if isinstance(texts, str) else texts
    if not _is_texts(texts) or any(not text.strip() for text in texts):
        raise MediaError(where, "'text' must be a text or a list of texts, none of them empty")
    labels = entry.get("labels", [])
    if not _is_texts(labels):
        raise MediaError(where, "'labels' must be a list of texts")
    media = {key: _source(key, value, root, where) for key, value in entry.items() if key not in _NOT_MEDIA}
    if texts:
        media["text"] = Source(texts[0], f"text:{texts[0][:60]}")
    if not media:
        raise MediaError(where, "has no media")
    return Event(identity, media, tuple(texts), tuple(labels), str(entry.get("group", "")))


_REFERENCE_KEYS = {"path", *(field.name for field in fields(Hints))}
"""Keys of a reference to a file: its path and the hints of a sidecar."""


def _source(modality: str, value: Any, root: Path, where: str) -> Source:
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise MediaError(where, f"{modality!r} must be an object with a 'path', got {value!r:.80}")
    if unknown := sorted(set(value) - _REFERENCE_KEYS):
        raise MediaError(where, f"{modality!r}: unknown keys {unknown}; known: {sorted(_REFERENCE_KEYS)}")
    path = PurePosixPath(value["path"])
    if path.is_absolute() or ".." in path.parts:
        raise MediaError(where, f"{modality!r}: {value['path']!r} must lie below the manifest's root")
    full = root / path
    return Source(full, os.fspath(full), Hints.from_mapping(value, where))


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
