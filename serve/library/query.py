"""A query of a library: text, terms or an embedding -> one embedding, and the words to look for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bind import arithmetic
from bind.model import pipeline
from bind.model.pipeline import Failed
from bind.query import Term as ParsedTerm
from bind.query import parse_query, resolved
from bind.space import Embeddings
from preprocess.source import Source
from serve.engine.terms import Term
from serve.library.text import fold, looks_like_path, shown

if TYPE_CHECKING:
    from bind.model.model import BindModel
from serve.library.items import Hit, Items


def modalities_of(query: str) -> set[str] | None:
    """A query -> the modalities that a model needs to embed it; None where only the content of a file decides.

    Raises QueryError.
    """
    modalities = [resolved(term).modality for term in parse_query(query)]
    return None if None in modalities else {modality for modality in modalities if modality}


def path_notes(texts: Sequence[str], found: Sequence[Hit] = ()) -> list[str]:
    """Texts that were searched as words -> what is to be said of those that look like a path.

    Where the first hit has just this name, that is what was meant.
    """
    first = fold(os.path.basename(shown(found[0].path))) if found else None
    return [
        f"'{text}' looks like a path, but there is no such file: it was searched as words"
        for text in texts
        if looks_like_path(text) and fold(text.strip().replace("\\", "/").rpartition("/")[2]) != first
    ]


def unmarked_texts(query: str) -> list[str]:
    """The terms of a query that name no modality and no file that exists. Raises QueryError."""
    terms = [(term, resolved(term)) for term in parse_query(query)]
    return [term.value for term, meant in terms if term.modality is None and meant.modality == "text"]


@dataclass(frozen=True, eq=False)
class Asked:
    """An embedded query: one row, the `words` to look for ('' for none), and its `modality` (None for several).

    `without` are the items that the query adds, where the hits are to leave out their files.
    """

    embedding: Embeddings
    words: str = ""
    modality: str | None = None
    without: tuple[int, ...] = ()

    @classmethod
    def of(cls, terms: Sequence[Term], modalities: Sequence[str | None], embedding: Embeddings) -> Asked:
        """Terms, their modalities (None or '' for a vector) and their sum -> what is asked.

        A query of nothing but texts has words, and the items that it adds are left out.
        """
        texts = [term for term in terms if term.is_words]
        words = " ".join(str(term.content) for term in texts if term.weight > 0) if len(texts) == len(terms) else ""
        without = [term.content for term in terms if isinstance(term.content, int) and term.weight > 0]
        kinds = set(modalities)
        return cls(embedding, words, (kinds.pop() or None) if len(kinds) == 1 else None, tuple(without))


def embed(
    model: BindModel, items: Items, query: str | Sequence[ParsedTerm | Term] | Embeddings, keywords: bool | None
) -> Asked:
    """A query -> what is asked: `keywords` say whether the words of its texts are, None where it has nothing else.

    Raises as `Library.search` does.
    """
    if isinstance(query, Embeddings):
        return Asked(query)
    given = parse_query(query) if isinstance(query, str) else list(query)
    if not given:
        raise ValueError("search: expected at least one term")
    terms = [resolved(term) if isinstance(term, ParsedTerm) else term for term in given]
    vectors, modalities = _embedded(model, items, terms)
    embedding = arithmetic.combine(Embeddings(vectors, model.space), [term.weight for term in terms])
    texts = [(text, term.weight) for term in terms if (text := _text_of(term)) is not None]
    if keywords is None:
        keywords = len(texts) == len(terms)
    wanted = " ".join(text for text, weight in texts if weight > 0) if keywords else ""
    return Asked(embedding, wanted, modalities.pop() if len(modalities) == 1 else None)


def _embedded(model: BindModel, items: Items, given: Sequence[ParsedTerm | Term]) -> tuple[np.ndarray, set[str | None]]:
    """Terms -> their vectors (n, D) in order, and their modalities (None for a vector of unknown modality)."""
    rows: dict[int, np.ndarray] = {}
    modalities: set[str | None] = set()
    for place, term in enumerate(given):
        if not isinstance(term, Term):
            continue
        if isinstance(term.content, int):
            rows[place] = items.vectors([term.content]).vectors[0]
            modalities.add(items.item(term.content).modality)
        elif isinstance(term.content, np.ndarray):
            rows[place] = Embeddings(np.asarray(term.content, np.float32)[None], model.space).vectors[0]
            modalities.add(None)
    places = [place for place in range(len(given)) if place not in rows]
    for result in pipeline.embed(model, [_as_source(given[place]) for place in places]):
        if isinstance(result, Failed):
            raise result.error
        rows[places[result.position]] = result.vector
        modalities.add(result.modality)
    return np.stack([rows[place] for place in range(len(given))]), modalities


def _as_source(term: ParsedTerm | Term) -> tuple[Source, str | None]:
    if isinstance(term, Term):
        name = term.name or (str(term.content) if isinstance(term.content, Path) else "a term of the query")
        return Source(term.content, name, term.hints), "text" if term.is_words else term.modality
    if term.modality == "text":
        return Source(term.value, "text"), "text"
    return Source.from_path(os.path.expanduser(term.value)), term.modality


def _text_of(term: ParsedTerm | Term) -> str | None:
    """The words of a term, None for a term of another kind."""
    if isinstance(term, Term):
        return term.content if isinstance(term.content, str) else None
    return term.value if term.modality == "text" else None
