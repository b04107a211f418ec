"""The bodies of requests and answers, as pydantic models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from bind.modalities import specs

MAX_QUERY_TERMS = 64
"""Terms of one query; each may have to be embedded."""
MAX_ID = 2**63 - 1
"""The greatest id that SQLite can have."""
MAX_VECTOR_CHARACTERS = 2**16  # base64 of 12,288 numbers: more than any model of today has
FILE = "file"
"""The key of a term whose content decides its modality."""
CONTENTS = (*specs(), FILE)
"""Keys under which a body can hold content: one for each modality, and one for files of any."""
_DATA_PATTERN = "^data:[a-z]{0,9}/?[a-z0-9]{0,9};base64,(?:[A-Za-z0-9+/]{4})+$"
"""The pattern of data addresses in the OpenAPI description; every match is a valid address."""


class Strict(BaseModel):
    """A model without unknown keys: a misspelt key is an error, and not left out silently."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """What is wrong: `param` names the part of the request, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    """The body of every answer that reports an error."""

    error: ErrorDetail


def exactly_one(*names: str) -> Callable[[dict[str, Any]], None]:
    """Adds to a model's JSON schema that exactly one of these keys is given, which the model's validator checks."""

    def say(schema: dict[str, Any]) -> None:
        for name in names:
            kind = schema["properties"][name]
            (given,) = (option for option in kind.pop("anyOf") if option.get("type") != "null")
            kind.pop("default", None)
            kind.update(given)
        schema["oneOf"] = [{"required": [name]} for name in names]

    return say


class _TermBase(Strict):
    model_config = ConfigDict(json_schema_extra=exactly_one("item", "vector", *CONTENTS))

    weight: Annotated[float, Field(ge=-1, le=1, description="from -1 to 1")] = 1.0
    name: Annotated[str, Field(max_length=255, description="file name of the medium: its suffix helps")] = ""
    hints: Annotated[
        dict[str, float | str], Field(max_length=16, description="what the medium does not say, as `unit`, `rate_hz`")
    ] = {}
    item: Annotated[int | None, Field(ge=1, le=MAX_ID, description="id of an item of the library")] = None
    vector: Annotated[
        str | None,
        Field(description="an embedding of this server's space: base64 of float32", max_length=MAX_VECTOR_CHARACTERS),
    ] = None
    vector_of: Annotated[str | None, Field(max_length=64, description="the modality that the vector is of")] = None

    @model_validator(mode="after")
    def _one_content(self) -> _TermBase:
        given = [name for name in ("item", "vector", *CONTENTS) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of item, vector, {', '.join(CONTENTS)}; got {', '.join(given) or 'none'}")
        return self


def _content_fields() -> dict[str, Any]:
    """A field for each modality: words for text, else a data: address."""
    found: dict[str, Any] = {}
    for name in (*specs(), FILE):
        if name == "text":
            about = Field(description="words", json_schema_extra={"minLength": 1})
        else:
            about = Field(description=f"{name}: data:TYPE;base64,...", json_schema_extra={"pattern": _DATA_PATTERN})
        found[name] = (Annotated[str | None, about], None)
    return found


TermBody = create_model("Term", __base__=_TermBase, **_content_fields())
TermBody.__doc__ = "Words, a medium or an item of the library, with a weight. Exactly one of them."


class Composed(Strict):
    """A weighted sum of terms, which gives one embedding."""

    terms: Annotated[list[TermBody], Field(min_length=1, max_length=MAX_QUERY_TERMS)]  # type: ignore[valid-type]


_Input = str | TermBody | Composed


MAX_INPUTS = 2048
"""Of one request for embeddings, as of OpenAI."""


class EmbeddingsRequest(Strict):
    """OpenAI's request; `input` also takes media and composed queries. Each entry becomes one embedding.

    `dimensions` cuts the vectors to one of the model's `shorter_dimensions` and normalises them again.
    """

    input: _Input | Annotated[list[_Input], Field(min_length=1, max_length=MAX_INPUTS)]  # type: ignore[valid-type]
    model: Annotated[str | None, Field(max_length=255)] = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Field(ge=1, description="a length that the model can be cut to")] = None
    user: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _no_tokens(cls, value: Any) -> Any:
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, list) and first:
            first = first[0]
        if isinstance(first, int):
            raise ValueError(
                "expected texts, got tokens, which every model has of its own; send the texts as they are "
                "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
            )
        return value


class Embedding(BaseModel):
    """One row: `embedding` is a list of numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """Unit vectors of one space, in the order of the input; shorter ones (`dimensions`) are a space of their own."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    space: str


class ItemAnswer(BaseModel):
    """A file, or a stretch of it. `also` are other files with the same content.

    `at` is the part of a picture or document (`page 3`), `notes` say what was repaired or assumed, `date_source` where
    the date is from: sidecar, exif, xmp, container, takeout or file.
    """

    object: Literal["item"]
    id: int
    modality: str
    path: str
    also: list[str]
    start_s: float | None
    end_s: float | None
    at: str | None
    date: str
    date_source: str
    notes: list[str]
    metadata: dict[str, Any]
    media: str
    thumbnail: str


class Items(BaseModel):
    """Items that were added or removed."""

    object: Literal["list"]
    data: list[ItemAnswer]


class ModelAnswer(BaseModel):
    """A model: its modalities, the dimensions and the identity of its space, and to which dimensions it can be cut."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    modalities: list[str]
    dimensions: int
    shorter_dimensions: list[int]
    space: str
    license: str


class Models(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelAnswer]


class State(BaseModel):
    """The state of the server."""

    status: str
