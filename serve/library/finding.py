"""The part of a library that answers queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bind.query import Term as ParsedTerm
from bind.space import Embeddings
from preprocess.source import Limits, Source
from serve.engine.terms import Term
from serve.library import query as queries
from serve.library.catalogue import Catalogue
from serve.library.folders import Folders
from serve.library.items import Hits, Items
from serve.library.moments import MomentOptions, Moments, Which, cut, finely
from serve.library.query import Asked
from serve.library.search import Search, SearchOptions

if TYPE_CHECKING:
    from bind.model.model import BindModel
    from serve.library.live_index import LiveIndex


class Finding(Folders):
    """Answers queries of the library of a catalogue; see `serve.library.library.Library`."""

    def __init__(self, catalogue: Catalogue, model: BindModel, live_index: LiveIndex, items: Items) -> None:
        super().__init__(catalogue, model, live_index)
        self._items = items
        self._search = Search(catalogue, model, live_index)

    def search(
        self,
        query: str | Sequence[ParsedTerm | Term] | Embeddings,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        *,
        keywords: bool | None = None,
        calibrate: bool = True,
        every_segment: bool = False,
        min_score: float | None = None,
        min_probability: float | None = None,
        cursor: str | None = None,
    ) -> Hits:
        """The k best hits for a query, best first: a list with `next`, the cursor of the next page, and `nothing`.

        Hits that are `likely` come first (see `serve.library.ranking`). Where `nothing` is true no hit is likely: the
        hits are the nearest that there is.

        Args:
            query: A line that `bind.query.parse_query` reads (a term without a modality is a file where one exists,
                else text), a sequence of terms (of `bind.query` or `serve.Term`, in any mixture), or one embedding.
            k: The largest number of hits.
            want: The modalities to find; None means all.
            where: A filter on columns and metadata, as in `serve.library.where`.
            keywords: Whether the words of the query's texts are also looked for in names, captions, metadata and lines.
                None means: where a query consists of texts.
            calibrate: Whether modalities are compared by calibrated scores, or else by their cosines alone.
            every_segment: Each segment is a hit of its own; otherwise a file is found once, with its best segment.
            min_score: Hits with a lower score are left out.
            min_probability: Less likely hits, and hits without a probability, are left out.
            cursor: `next` of the page before, for the same query and options (`k` may differ). The pages show the
                library as it was at the first one: what was added since is not shown, what was removed is missing.

        Raises:
            QueryError: The query cannot be read; the message points at the character.
            WhereError: The filter cannot be read; the message points at the character.
            CursorError: The cursor is none, or belongs to another search.
            MediaError: A file of the query cannot be used.
            ValueError: The terms cancel out, `want` has an unknown modality, k < 1, or `min_probability` is out of 0..1
                or the model has no calibration for it.

        Example:
            >>> hits = library.search("image:dog.jpg - text:indoors", k=2, want=["image"])
            >>> len(hits), hits[0].modality
            (2, 'image')
            >>> more = library.search("image:dog.jpg - text:indoors", k=2, want=["image"], cursor=hits.next)
        """
        asked = queries.embed(self.model, self._items, query, keywords)
        options = SearchOptions(k, want, where, calibrate, every_segment, min_score, min_probability, cursor)
        return self.answer(options, asked)

    def answer(self, options: SearchOptions, asked: Asked) -> Hits:
        """The hits for an embedded query, otherwise as `search`. Raises UnknownItemError for items to leave out."""
        without = [self._items.segment_and_file(number)[0] for number in asked.without]
        return self._search.find(asked, options, without)

    def find(
        self,
        query: Embeddings,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        *,
        words: str = "",
        calibrate: bool = True,
        every_segment: bool = False,
        modality: str | None = None,
        min_score: float | None = None,
        min_probability: float | None = None,
        cursor: str | None = None,
        without: Collection[int] = (),
    ) -> Hits:
        """The k best hits for one embedding, otherwise as `search`; `words` are looked for in names, captions, metadata
        and lines.

        `modality` is the modality of the query, None for a mixture: only a single modality has probabilities. The files
        of the items `without` are left out. Raises as `search`, and UnknownItemError for these.
        """
        options = SearchOptions(k, want, where, calibrate, every_segment, min_score, min_probability, cursor)
        return self.answer(options, Asked(query, words, modality, tuple(without)))

    def similar(
        self,
        item_id: int,
        k: int = 10,
        want: Sequence[str] | None = None,
        where: str | None = None,
        cursor: str | None = None,
    ) -> Hits:
        """The k best hits for an item of the library, without its own file.

        Raises as `search`, and UnknownItemError.
        """
        own = self._items.item(item_id)
        vectors = self._items.vectors([item_id])
        return self.find(vectors, k, want, where, modality=own.modality, cursor=cursor, without=[item_id])

    def moments(
        self,
        item_id: int,
        query: str | Sequence[ParsedTerm | Term] | Embeddings,
        *,
        fine: bool = False,
        which: Which = "all",
        min_score: float | None = None,
        after_s: float | None = None,
        before_s: float | None = None,
    ) -> Moments:
        """All stretches of a recording that match a query, in the order of time, with the scores that they are cut
        from.

        Args:
            item_id: Any item of the film, sound or motion recording; of a film's sound track, its sound is looked at.
            query: As of `search`.
            fine: The file is read again in stretches of about two seconds, which takes as long as indexing it. The
                stored stretches are about ten seconds long.
            which: All moments, or the first or the last one alone.
            min_score: The least score of a moment's peak. None: that of a probability of 0.5, or 2 without any.
            after_s: Only moments that begin at this second or later.
            before_s: Only moments that end at this second or earlier.

        Raises:
            UnknownItemError: There is no such item (any more) or, with `fine`, no such file.
            MediaError: A file cannot be read.
            ValueError: The item has no times, or the query cannot be used, as in `search`.

        Example:
            >>> with open("film.mp4", "rb") as file:
            ...     film = next(item for item in library.add(file, "film.mp4") if item.modality == "video")
            >>> moments = library.moments(film.item_id, "text:people riding bicycles", min_score=0.0)
            >>> moments.scores.shape == moments.spans.shape[:1]
            True
        """
        asked = queries.embed(self.model, self._items, query, None)
        return self.answer_moments(item_id, MomentOptions(fine, which, min_score, after_s, before_s), asked)

    def answer_moments(
        self, item_id: int, options: MomentOptions, asked: Asked, *, limits: Limits | None = None
    ) -> Moments:
        """The moments for an embedded query, otherwise as `moments`; `limits` are those of reading the file again."""
        stretches, vectors = self._items.stretches(item_id)
        scale = self._search.scale(asked, stretches[0].modality)
        ids = [one.item_id for one in stretches]
        spans = np.array([(one.start_s or 0.0, one.end_s or 0.0) for one in stretches], np.float64)
        if options.fine:
            path, file = self._items.open_with_path(item_id)
            file.close()
            source, modality = Source.from_path(path), stretches[0].modality
            spans, vectors = finely(self.model, source, modality, float(spans.max()), limits or Limits())
            ids = []
        return cut(spans, vectors, asked.embedding.vectors[0], scale, options, ids)
