"""The side of a split that an event is on.

It depends on the event's name alone, in every data set and on every machine.

    python -m train.small.splits MANIFEST.jsonl ... OUT

writes `OUT/NAME-train.jsonl`, `-validation` and `-test` for each manifest. The name of an event is its `group`, or else
its last caption. Names that differ only by article, number, skin tone or gender ("a frog." and "frogs", "man running"
and "woman running") have one key. All flags have one key, and so have all clock faces. So nothing with a held-out name
is trained on, neither by another artist nor from another set.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from preprocess import manifest

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
"""The sides of a split, in the order of their shares."""

# shares of all keys; the rest is for training
_TEST, _VALIDATION = 0.20, 0.10
FOLDS = 5

_TAIL = re.compile(r"\s*[:(].*|,.*skin tone.*")
"""What stands behind a name: `: dark skin tone`, `(blue)`."""
_WORD = re.compile(r"[^\W_]+")
"""A word without underscores, which names of files have between words."""
_ARTICLES = {"a", "an", "the", "this", "is", "some"}
"""Words in front of a name that say nothing about the thing."""
_PEOPLE = {"man", "men", "woman", "women", "person", "people", "boy", "girl", "mr", "mrs"}
"""Words for people, of which emoji have several variants of one drawing."""
_CODE = re.compile(r"(?=.*\d)[0-9a-f]{2,6}(-[0-9a-f]{2,6})*")
"""The code points of an emoji: `1f600`, `1f468-200d-1f469`."""
_CLOCK = re.compile(r"o.?clock|thirty$")
"""Names of the 24 faces of a clock, which are one thing."""


def key(name: str) -> str:
    """A name or caption -> the key that it shares with its twins: `a man running: dark skin tone` -> `running`.

    The key is in lower case, without the part behind a colon or bracket, articles, words for people beside other words,
    and the plural's s. A name of which nothing would remain is its own key.
    """
    plain = name.strip().lower()
    if _CLOCK.search(plain):
        return "clock"
    words = [word for word in _WORD.findall(_TAIL.sub("", plain)) if word not in _ARTICLES]
    if "flag" in words[-1:]:
        return "flag"
    words = [word for word in words if word not in _PEOPLE] or words
    singular = [
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words
    ]
    return " ".join(singular) or plain


def side(name: str) -> Side:
    """A name or caption -> its side: 70 % of all keys are for training, 10 % for validation, 20 % for the test."""
    place = _place(name)
    return "test" if place < _TEST else "validation" if place < _TEST + _VALIDATION else "train"


def fold(name: str) -> int:
    """A name or caption -> its fold, 0 to 4, with a fifth of all keys each. Fold 0 is the test side."""
    return int(_place(name) * FOLDS)


def _place(name: str) -> float:
    """A name -> its place in [0, 1), computed from its key's hash."""
    return int.from_bytes(hashlib.sha256(key(name).encode()).digest()[:8], "big") / 2**64


def name_of(entry: dict[str, Any]) -> str:
    """The name by which an event of a manifest is split: its group, else its last caption, else its id.

    A group that is an emoji's code does not count as a name.
    """
    texts = entry.get("text", [])
    last = texts if isinstance(texts, str) else texts[-1] if texts else ""
    group = str(entry.get("group", ""))
    return ("" if _CODE.fullmatch(group) else group) or last or str(entry["id"])


def write(path: Path, out: Path, part_of: Callable[[str], str | None] = side) -> dict[str, int]:
    """A manifest -> `OUT/STEM-PART.jsonl` for each part that `part_of` gives its names; returns the events of each
    part.

    Names without a part are left out. Media are not moved. Raises ManifestError for a manifest that cannot be read.
    """
    whole = manifest.read(path)
    header, *entries = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    parts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if part := part_of(name_of(entry)):
            parts[part].append(entry)
    out.mkdir(parents=True, exist_ok=True)
    count = {}
    for part, events in parts.items():
        about = f"{header.get('about', '')} Of these, the events of side {part} (train.small.splits).".strip()
        described = header | {"name": f"{header['name']}-{part}", "root": str(whole.root), "about": about}
        count[part] = manifest.write(out / f"{path.stem}-{part}.jsonl", described, events)
    return count


def main() -> None:
    """Splits the manifests that are named on the command line; the parts go into the folder that is named last."""
    *paths, out = map(Path, sys.argv[1:])
    for path in paths:
        count = write(path, out)
        print(path.name, *(f"{one} {count[one]:,}" for one in SIDES if one in count))


if __name__ == "__main__":
    main()
