"""The shapes of requests and answers that search: hits, places in pictures, and moments of recordings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.http.schemas import MAX_QUERY_TERMS, ItemAnswer, Strict, TermBody, exactly_one
from serve.library.moments import Which


class SearchRequest(Strict):
    """A query: either `query` (words) or `terms` (words, media and items), the modalities to `want`, and a filter
    `where`.

    `min_score` and `min_probability` leave out hits that are worse. `cursor` is `next` of the page before, with the
    same query and options. With `every_segment` each stretch of a recording is a hit of its own. With `locate`, the
    first hits that are pictures say where they show the query.
    """

    model_config = ConfigDict(json_schema_extra=exactly_one("query", "terms"))

    query: str | None = None
    terms: Annotated[list[TermBody], Field(min_length=1, max_length=MAX_QUERY_TERMS)] | None = None  # type: ignore[valid-type]
    k: Annotated[int, Field(ge=1)] = 10
    want: Annotated[list[str], Field(max_length=32)] | None = None
    where: str | None = None
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    cursor: Annotated[str, Field(max_length=1000)] | None = None
    every_segment: bool = False
    locate: bool = False

    @model_validator(mode="after")
    def _one_query(self) -> SearchRequest:
        if (self.query is None) == (self.terms is None):
            raise ValueError("expected one of query (words) and terms")
        return self


class MomentsRequest(Strict):
    """A query: either `query` (words) or `terms`. The file is read again in short stretches with `fine`.

    `which` takes all moments, or the first or the last alone; `after_s` and `before_s` are bounds in seconds, and
    `min_score` is the least score of a moment.
    """

    model_config = ConfigDict(json_schema_extra=exactly_one("query", "terms"))

    query: Annotated[str | None, Field(min_length=1)] = None
    terms: Annotated[list[TermBody], Field(min_length=1, max_length=MAX_QUERY_TERMS)] | None = None  # type: ignore[valid-type]
    fine: bool = False
    which: Which = "all"
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    after_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    before_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_query(self) -> MomentsRequest:
        if (self.query is None) == (self.terms is None):
            raise ValueError("expected one of query (words) and terms")
        return self


class LocateRequest(Strict):
    """A `picture` (an item, a picture, depth or thermal image), and a query: either `query` (words) or `terms`."""

    model_config = ConfigDict(json_schema_extra=exactly_one("query", "terms"))

    picture: TermBody  # type: ignore[valid-type]
    query: Annotated[str | None, Field(min_length=1)] = None
    terms: Annotated[list[TermBody], Field(min_length=1, max_length=MAX_QUERY_TERMS)] | None = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _one_query(self) -> LocateRequest:
        if (self.query is None) == (self.terms is None):
            raise ValueError("expected one of query (words) and terms")
        return self


class BoxAnswer(BaseModel):
    """A part of the picture in its pixels, `x1` and `y1` exclusive; `score` is its cosine with the query."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float


class HeatAnswer(BaseModel):
    """The cosine of each place with the query: `data` is base64 of little-endian float32, row by row."""

    width: int
    height: int
    data: str


class PlacesAnswer(BaseModel):
    """Where a picture of `width` x `height` pixels shows what was asked for, best first."""

    width: int
    height: int
    boxes: list[BoxAnswer]


class LocatedAnswer(BaseModel):
    """Where a picture of `width` x `height` pixels shows what was asked for: boxes, best first, and a heat map."""

    object: Literal["located"]
    width: int
    height: int
    boxes: list[BoxAnswer]
    heat: HeatAnswer


class LineAnswer(BaseModel):
    """A line of words in a picture, or a phrase of speech, that has words of the query.

    `box` is [left, top, right, bottom] in parts of the picture's width and height, `at` the page of a document; speech
    has `start_s` and `end_s`.
    """

    text: str
    score: float | None
    box: tuple[float, float, float, float] | None
    at: str | None
    start_s: float | None
    end_s: float | None


class HitAnswer(ItemAnswer):
    """`score` compares across modalities (standard deviations above the usual item), `cosine` does not.

    `probability` says how likely the item is what was asked for; null where the model cannot tell. `likely` says
    whether it probably is: by its probability, else by its score, or because it has all words of the query. `places`
    are null unless they were asked for (`locate`).
    """

    score: float
    cosine: float
    keyword: bool
    probability: float | None
    likely: bool
    lines: list[LineAnswer]
    places: PlacesAnswer | None


class Hits(BaseModel):
    """Hits, best first: `likely` ones, of which there are this many on this page, then others.

    `next` is the `cursor` of the next page, null at the end. `nothing` says that no hit of the whole search is likely.
    `notes` say of words that look like a path that no file was meant by them.
    """

    object: Literal["list"]
    data: list[HitAnswer]
    likely: int
    nothing: bool
    next: str | None
    notes: list[str]


class MomentAnswer(BaseModel):
    """A matching stretch of a recording in seconds, with the highest score in it, at `peak_s`."""

    start_s: float
    end_s: float
    peak_s: float
    score: float
    probability: float | None


class CurveAnswer(BaseModel):
    """The score of each stretch of a recording, in the order of time; `ids` are their items, empty for fine ones.

    `threshold` is the score from which on a peak counts as found, null where no score is enough.
    """

    start_s: list[float]
    end_s: list[float]
    score: list[float]
    ids: list[int]
    threshold: float | None


class MomentsAnswer(BaseModel):
    """All stretches of a recording that match, in the order of time, and the curve that they are cut from."""

    object: Literal["list"]
    data: list[MomentAnswer]
    curve: CurveAnswer
