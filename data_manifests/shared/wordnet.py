"""WordNet's nouns: which words name a thing that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PLACES = ("usr/share/wordnet", "share/wordnet", "wordnet", ".")
"""The folders of the Debian package wordnet-base, below a folder into which it was unpacked."""

# The numbers of lexicographer files (lexnames(5WN)) for animal, artifact, body, food, object, person, phenomenon, plant
# and substance.
_PHYSICAL = {"05", "06", "08", "13", "17", "18", "19", "20", "27"}
_ENDINGS = {"ies": "y", "ses": "s", "xes": "x", "zes": "z", "ches": "ch", "shes": "sh", "men": "man", "s": ""}
_PLACE = len("00001740 ")


@dataclass(frozen=True, repr=False)
class Nouns:
    """`places`: lemma -> the position of its most frequent sense in `data` (data.noun)."""

    places: dict[str, int]
    data: bytes
    irregular: dict[str, str]

    def thing(self, words: Sequence[str]) -> bool:
        """Whether the longest noun that ends `words` names, in its most frequent sense, an animal, artifact or the
        like.

        A single letter is no such noun.
        """
        tails = (joint.join(words[start:]) for start in range(len(words)) for joint in ("_", ""))
        found = next(filter(None, map(self._lemma, tails)), None)
        if found is None:
            return False
        # a line begins with its position, then comes the lexicographer file (wndb(5WN))
        place = self.places[found] + _PLACE
        return self.data[place : place + 2].decode() in _PHYSICAL

    def _lemma(self, word: str) -> str | None:
        """A noun, also in the plural, several words joined by `_` -> its lemma in WordNet, or None."""
        forms = [word, self.irregular.get(word, "")]
        forms += [word.removesuffix(ending) + instead for ending, instead in _ENDINGS.items() if word.endswith(ending)]
        return next((form for form in forms if len(form) > 1 and form in self.places), None)


def nouns(folder: Path) -> Nouns | None:
    """WordNet's files index.noun, data.noun and noun.exc below a folder (`PLACES`) -> its nouns, or None
    without files.
    """
    base = next((folder / place for place in PLACES if (folder / place / "index.noun").is_file()), None)
    if base is None:
        return None
    places: dict[str, int] = {}
    for line in (base / "index.noun").read_text("utf-8").splitlines():
        if not line.startswith(" "):  # lines of the licence begin with a space
            lemma, _, count, *rest = line.split()
            places[lemma] = int(rest[-int(count)])
    exceptions = (line.split() for line in (base / "noun.exc").read_text("utf-8").splitlines())
    irregular = {plural: singular for plural, singular, *_ in exceptions}
    return Nouns(places, (base / "data.noun").read_bytes(), irregular)
