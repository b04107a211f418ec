"""WordNet's nouns: which words name a thing that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PLACES = ("usr/share/wordnet", "share/wordnet", "wordnet", ".")
"""Where the Debian package wordnet-base has its files, below a folder it was unpacked into."""

# Numbers of lexicographer files (lexnames(5WN)): animal, artifact, body, food, object, person, phenomenon, plant and
# substance.
_PHYSICAL = {"05", "06", "08", "13", "17", "18", "19", "20", "27"}
_ENDINGS = {"ies": "y", "ses": "s", "xes": "x", "zes": "z", "ches": "ch", "shes": "sh", "men": "man", "s": ""}
_PLACE = len("00001740 ")


@dataclass(frozen=True, repr=False)
class Nouns:
    """`places`: lemma -> where its most frequent sense stands in `data` (data.noun)."""

    places: dict[str, int]
    data: bytes
    irregular: dict[str, str]

    def thing(self, words: Sequence[str]) -> bool:
        """Whether the longest noun that ends `words`, not a letter, is first of all an animal, artifact or the like."""
        tails = (joint.join(words[start:]) for start in range(len(words)) for joint in ("_", ""))
        found = next(filter(None, map(self._lemma, tails)), None)
        if found is None:
            return False
        place = self.places[found] + _PLACE  # a line begins with it, then comes the lexicographer file (wndb(5WN))
        return self.data[place : place + 2].decode() in _PHYSICAL

    def _lemma(self, word: str) -> str | None:
        """A noun, in the plural too, several words joined by `_` -> as WordNet has it; None where it has not."""
        forms = [word, self.irregular.get(word, "")]
        forms += [word.removesuffix(ending) + instead for ending, instead in _ENDINGS.items() if word.endswith(ending)]
        return next((form for form in forms if len(form) > 1 and form in self.places), None)


def nouns(folder: Path) -> Nouns | None:
    """WordNet's files index.noun, data.noun and noun.exc below a folder (`PLACES`) -> its nouns; None if not there."""
    base = next((folder / place for place in PLACES if (folder / place / "index.noun").is_file()), None)
    if base is None:
        return None
    places: dict[str, int] = {}
    for line in (base / "index.noun").read_text("utf-8").splitlines():
        if not line.startswith(" "):  # the licence
            lemma, _, count, *rest = line.split()
            places[lemma] = int(rest[-int(count)])
    exceptions = (line.split() for line in (base / "noun.exc").read_text("utf-8").splitlines())
    irregular = {plural: singular for plural, singular, *_ in exceptions}
    return Nouns(places, (base / "data.noun").read_bytes(), irregular)
