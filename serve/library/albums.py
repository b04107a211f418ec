"""Albums and tags: named lists of files, and albums that are a saved query or filter.

A *tag* is a word with the files that a model found for it, each with its probability. Members are what files hold
(their SHA-256), as marks are (see `serve.library.marks`), so that lists stay as they are when files move or are indexed
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from serve.library.errors import UnknownAlbumError
from serve.library.schema import is_whole, sign

if TYPE_CHECKING:
    from serve.library.catalogue import Catalogue
    from serve.library.writer import Writer

Kind = Literal["album", "tag"]
MAX_NAME = 200
"""The largest number of characters of a name."""
MAX_ALBUMS = 10_000
"""The largest number of albums, and of tags."""


@dataclass(frozen=True)
class Album:
    """An album or a tag.

    A list has neither `query` nor `where`, and `count` files. Of a saved query or filter `count` is None, because it is
    made anew whenever it is shown. `min_probability` is the least probability of a tag's files.
    """

    album_id: int
    kind: Kind
    name: str
    query: str | None
    where: str | None
    min_probability: float | None
    count: int | None


def checked_name(name: str) -> str:
    """A name as somebody types it -> without spaces around it. Raises ValueError for one that is no name."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"expected a name of 1 to {MAX_NAME} characters that can be printed, got {name[:50]!r}")
    return name


def listed(catalogue: Catalogue, kind: Kind) -> list[Album]:
    """All albums or all tags, by name. Raises DamagedError."""
    rows = catalogue.rows(
        "SELECT id, name, query, filter, min_probability, (SELECT count(DISTINCT f.content) FROM members m "
        "JOIN contents c ON c.digest = m.digest JOIN files f ON f.content = c.id WHERE m.album = albums.id), "
        f"{is_whole('albums')} FROM albums WHERE kind = ? ORDER BY fold(name), name",
        (kind,),
    )
    catalogue.check_rows("album", ((row[0], row[-1]) for row in rows))
    return [
        Album(number, kind, name, query, where, likely, count if query is None and where is None else None)
        for number, name, query, where, likely, count, _ in rows
    ]


def make(
    writer: Writer,
    kind: Kind,
    name: str,
    query: str | None = None,
    where: str | None = None,
    min_probability: float | None = None,
) -> int:
    """Makes an album or tag -> its id. Raises ValueError for a name that is taken or is none."""
    name = checked_name(name)
    (count,) = writer.connection.execute("SELECT count(*) FROM albums WHERE kind = ?", (kind,)).fetchone()
    if count >= MAX_ALBUMS:
        raise ValueError(f"there are {MAX_ALBUMS:,} already, which is the largest number")
    if writer.connection.execute("SELECT 1 FROM albums WHERE kind = ? AND name = ?", (kind, name)).fetchone():
        raise ValueError(f"there is a {kind} {name!r} already")
    number = writer.connection.execute(
        "INSERT INTO albums (kind, name, query, filter, min_probability) VALUES (?, ?, ?, ?, ?)",
        (kind, name, query, where, min_probability),
    ).lastrowid
    sign(writer.connection, "albums", "id = ?", (number,))
    writer.touch()
    assert number is not None
    return number


def named(writer: Writer, kind: Kind, album_id: int) -> tuple[str, bool]:
    """The name of an album or tag, and whether it is a list. Raises UnknownAlbumError."""
    row = writer.connection.execute(
        "SELECT name, query IS NULL AND filter IS NULL FROM albums WHERE kind = ? AND id = ?", (kind, album_id)
    ).fetchone()
    if row is None:
        raise UnknownAlbumError(f"there is no {kind} {album_id} in this library (any more)")
    return row[0], bool(row[1])


def change(writer: Writer, album_id: int, add: Mapping[bytes, float | None], remove: Sequence[bytes]) -> None:
    """Adds and removes members: digest -> probability, None for what a person added, which stays a person's."""
    connection = writer.connection
    connection.executemany(
        "DELETE FROM members WHERE album = ? AND digest = ?", [(album_id, digest) for digest in remove]
    )
    connection.executemany(
        "INSERT INTO members (album, digest, probability) VALUES (?, ?, ?) ON CONFLICT (album, digest) DO UPDATE SET "
        "probability = CASE WHEN probability IS NOT NULL THEN excluded.probability END",
        [(album_id, digest, likely) for digest, likely in add.items()],
    )
    sign(connection, "members", "album = ?", (album_id,))
    writer.touch()


def put_tag(writer: Writer, word: str, min_probability: float) -> int:
    """A tag for a word, made or with the members gone that a model found earlier -> its id. Raises ValueError."""
    row = writer.connection.execute("SELECT id FROM albums WHERE kind = 'tag' AND name = ?", (word,)).fetchone()
    if row is None:
        return make(writer, "tag", word, min_probability=min_probability)
    number = int(row[0])
    writer.connection.execute("DELETE FROM members WHERE album = ? AND probability IS NOT NULL", (number,))
    writer.connection.execute("UPDATE albums SET min_probability = ? WHERE id = ?", (min_probability, number))
    sign(writer.connection, "albums", "id = ?", (number,))
    return number


def rename(writer: Writer, kind: Kind, album_id: int, name: str) -> None:
    """Gives an album another name. Raises ValueError for a name that is taken or is none."""
    name = checked_name(name)
    taken = "SELECT 1 FROM albums WHERE kind = ? AND name = ? AND id <> ?"
    if writer.connection.execute(taken, (kind, name, album_id)).fetchone():
        raise ValueError(f"there is a {kind} {name!r} already")
    writer.connection.execute("UPDATE albums SET name = ? WHERE id = ?", (name, album_id))
    sign(writer.connection, "albums", "id = ?", (album_id,))
    writer.touch()


def drop(writer: Writer, album_id: int) -> None:
    """Deletes an album or tag with its list. No file is deleted."""
    writer.connection.execute("DELETE FROM members WHERE album = ?", (album_id,))
    writer.connection.execute("DELETE FROM albums WHERE id = ?", (album_id,))
    writer.touch()
