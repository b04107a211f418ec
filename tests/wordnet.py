"""A WordNet of a few nouns, in its file format."""

from __future__ import annotations

from pathlib import Path

# Lemmas of a synset, lexicographer file (05 animal, 06 artifact, 07 attribute, 13 food, 14 group), hypernym, gloss.
SYNSETS = (
    (("fruit",), "13", "", "the ripened reproductive body of a seed plant"),
    (("apple", "orchard_apple"), "13", "fruit", 'fruit with red or yellow skin; "an apple a day"'),
    (("apple_core",), "13", "", "what is left of an apple"),
    (("core", "core_group"), "14", "", "a small group of people"),
    (("car", "auto"), "06", "", "a motor vehicle with four wheels"),
    (("ambulance",), "06", "car", "a vehicle that takes people to hospitals"),
    (("speed",), "07", "", "distance travelled per unit time"),
    (("menu",), "06", "", "a list of dishes"),
    (("mouse",), "05", "", "a small rodent"),
)


def write(root: Path) -> None:
    """Writes index.noun, data.noun and noun.exc where the Debian package wordnet-base has them, below `root`."""
    licence = "  1 This software and database is being provided to you\n"
    index, data = licence, licence
    places: dict[str, str] = {}
    for lemmas, kind, hypernym, gloss in SYNSETS:
        place = f"{len(data):08d}"
        pointers = f"001 @ {places[hypernym]} n 0000" if hypernym else "000"
        data += (
            f"{place} {kind} n {len(lemmas):02x} {' '.join(f'{lemma} 0' for lemma in lemmas)} {pointers} | {gloss}  \n"
        )
        for lemma in lemmas:
            places[lemma] = place
            index += f"{lemma} n 1 1 @ 1 0 {place}  \n"
    folder = root / "usr/share/wordnet"
    folder.mkdir(parents=True)
    for name, text in (("index.noun", index), ("data.noun", data), ("noun.exc", "mice mouse\n")):
        (folder / name).write_text(text, "utf-8")
