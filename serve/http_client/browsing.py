"""The part of the client that lists, marks and exports a library's files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx

from serve.http_client.values import FoundAlbum, FoundFile, FoundPage, album_of, file_of


class Browsing:
    """Lists, marks and albums of the library of a server; see `serve.client.Client`."""

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        raise NotImplementedError

    def files(
        self,
        where: str | None = None,
        *,
        sort: str = "added",
        order: str = "asc",
        limit: int = 100,
        cursor: str | None = None,
        hidden: bool = False,
    ) -> FoundPage:
        """The files of the library in an order, page by page, as `Library.files`.

        Args:
            where: A filter, as of `search`.
            sort: `added`, `date`, `name`, `size` or `path`.
            order: `asc` or `desc`.
            limit: The largest number of files, up to 1,000.
            cursor: The `cursor` of the page before.
            hidden: Hidden files are listed too.

        Raises:
            ApiError: The filter cannot be read, or there is no such order.

        Example:
            >>> page = client.files(sort="name", limit=2)
            >>> len(page.files) <= 2, page.total >= len(page.files)
            (True, True)
        """
        asked = _given(where=where, cursor=cursor) | {"files": True, "sort": sort, "order": order, "limit": limit}
        told = self._ask("GET", "/v1/items", params=asked | {"hidden": hidden}).json()
        return FoundPage([file_of(row) for row in told["data"]], told["cursor"], told["total"])

    def file(self, item_id: int) -> FoundFile:
        """The file that an item belongs to, with its size, kind and marks.

        Args:
            item_id: The id of any item of the file.

        Raises:
            ApiError: There is no such item (status 404).

        Example:
            >>> (hit,) = client.search("a dog", k=1)
            >>> client.file(hit.id).kind
            'image'
        """
        return file_of(self._ask("GET", f"/v1/items/{item_id}").json())

    def facets(self, where: str | None = None, *, limit: int = 1000) -> dict[str, Any]:
        """How many files pass a filter, and how many of each kind, folder, month, camera, place, album and tag.

        Args:
            where: A filter, as of `search`.
            limit: The largest number of values of a facet.

        Raises:
            ApiError: The filter cannot be read.

        Example:
            >>> client.facets()["total"] == client.files(limit=1).total
            True
        """
        found: dict[str, Any] = self._ask("GET", "/v1/facets", params=_given(where=where) | {"limit": limit}).json()
        return found

    def near(self, item_id: int, by: str = "time", *, limit: int = 20, where: str | None = None) -> list[FoundFile]:
        """The files that were made nearest in time or in place to an item's file, nearest first.

        Args:
            item_id: The id of any item of the file.
            by: `time` or `place`.
            limit: The largest number of files.
            where: A filter, as of `search`.

        Raises:
            ApiError: There is no such item, or the filter cannot be read.

        Example:
            >>> (hit,) = client.search("a dog", k=1)
            >>> hit.path in [file.path for file in client.near(hit.id)]
            False
        """
        asked = _given(where=where) | {"by": by, "limit": limit}
        return [file_of(row) for row in self._ask("GET", f"/v1/items/{item_id}/near", params=asked).json()["data"]]

    def groups(self, count: int = 12, *, where: str | None = None) -> list[dict[str, Any]]:
        """Groups of files that are alike, as dictionaries: name, words, count, ids and examples, largest first.

        Args:
            count: The number of groups to look for, up to 64.
            where: A filter, as of `search`.

        Raises:
            ApiError: The filter cannot be read.

        Example:
            >>> len(client.groups(2)) <= 2
            True
        """
        found: list[dict[str, Any]] = self._ask("GET", "/v1/groups", params=_given(where=where) | {"n": count}).json()[
            "data"
        ]
        return found

    def duplicates(self, threshold: float = 0.98, *, limit: int = 1000) -> list[tuple[float, list[FoundFile]]]:
        """Groups of files that are the same or nearly so, as (least cosine, files), largest first.

        Args:
            threshold: The least cosine of near-duplicates, from 0.5.
            limit: The largest number of groups, up to 1,000.

        Raises:
            ApiError: The server refuses the request.

        Example:
            >>> all(len(files) > 1 or files[0].also for _, files in client.duplicates())
            True
        """
        asked = {"threshold": threshold, "limit": limit}
        told = self._ask("GET", "/v1/duplicates", params=asked).json()["data"]
        return [(group["cosine"], [file_of(row) for row in group["files"]]) for group in told]

    def mark(self, item_ids: Sequence[int], *, favourite: bool | None = None, hidden: bool | None = None) -> int:
        """Marks the files of items, as `Library.mark` -> how many files.

        Args:
            item_ids: Ids of any items of the files.
            favourite: Whether they are favourites; None leaves that as it is.
            hidden: Whether they are hidden; None leaves that as it is.

        Raises:
            ApiError: There is no such item, or the server is read-only.

        Example:
            >>> (hit,) = client.search("a dog", k=1)
            >>> client.mark([hit.id], favourite=True)
            1
        """
        body = {"ids": list(item_ids)} | _given(favourite=favourite, hidden=hidden)
        return int(self._ask("POST", "/v1/marks", json=body).json()["files"])

    def albums(self) -> list[FoundAlbum]:
        """The albums of the library, by name.

        Raises:
            ApiError: The server refuses the request.

        Example:
            >>> all(album.name for album in client.albums())
            True
        """
        return [album_of(row) for row in self._ask("GET", "/v1/albums").json()["data"]]

    def make_album(
        self, name: str, *, query: str | None = None, where: str | None = None, item_ids: Sequence[int] = ()
    ) -> FoundAlbum:
        """Makes an album, as `Library.make_album`.

        Args:
            name: Its name.
            query: A query that is asked whenever the album is opened.
            where: A filter, as of `search`.
            item_ids: Ids of any items of the files of a list.

        Raises:
            ApiError: The name is taken, the filter cannot be read, or the server is read-only.

        Example:
            >>> (hit,) = client.search("a dog", k=1)
            >>> client.make_album("dogs", item_ids=[hit.id]).count
            1
        """
        body = {"name": name, "ids": list(item_ids)} | _given(query=query, where=where)
        return album_of(self._ask("POST", "/v1/albums", json=body).json())

    def change_album(
        self, album_id: int, *, name: str | None = None, add: Sequence[int] = (), remove: Sequence[int] = ()
    ) -> FoundAlbum:
        """Renames an album, adds files to its list, and removes others from it.

        Args:
            album_id: The id of the album.
            name: Its new name; None leaves it as it is.
            add: Ids of any items of files to add.
            remove: Ids of any items of files to remove.

        Raises:
            ApiError: There is no such album or item, or the server is read-only.

        Example:
            >>> (hit,) = client.search("a dog", k=1)
            >>> album = client.make_album("pets")
            >>> client.change_album(album.id, add=[hit.id]).count
            1
        """
        body = {"add": list(add), "remove": list(remove)} | _given(name=name)
        return album_of(self._ask("PATCH", f"/v1/albums/{album_id}", json=body).json())

    def delete_album(self, album_id: int) -> None:
        """Deletes an album, and no file.

        Args:
            album_id: The id of the album.

        Raises:
            ApiError: There is no such album, or the server is read-only.

        Example:
            >>> client.delete_album(client.make_album("for a moment").id)
        """
        self._ask("DELETE", f"/v1/albums/{album_id}")

    def tags(self) -> list[FoundAlbum]:
        """The tags of the library, by word.

        Raises:
            ApiError: The server refuses the request.

        Example:
            >>> all(tag.name for tag in client.tags())
            True
        """
        return [album_of(row) for row in self._ask("GET", "/v1/tags").json()["data"]]

    def tag(self, words: Sequence[str], *, min_probability: float = 0.5) -> list[FoundAlbum]:
        """Tags every file that shows what a word says, as `Library.tag` -> the tags.

        Args:
            words: What to look for.
            min_probability: The least probability with which a file gets a word.

        Raises:
            ApiError: The model has no calibration, or the server is read-only.
        """
        body = {"words": list(words), "min_probability": min_probability}
        return [album_of(row) for row in self._ask("POST", "/v1/tags", json=body).json()["data"]]

    def add_folder(self, path: str) -> None:
        """Lets a folder of the server's machine be indexed in the background; `wait_for_indexing` waits for that.

        Args:
            path: The folder, which the server's setting `allow_folders` has to allow.

        Raises:
            ApiError: The server does not add that folder, or there is none.
        """
        self._ask("POST", "/v1/folders", json={"path": path})

    def wait_for_indexing(self) -> dict[str, Any]:
        """Waits until nothing is being indexed -> the last state, with the `report` of the last run.

        Raises:
            ApiError: The server refuses the request.

        Example:
            >>> client.wait_for_indexing()["state"] in ("idle", "done")
            True
        """
        lines = self._ask("GET", "/v1/indexing", timeout=None).text.splitlines()
        last: dict[str, Any] = json.loads([line for line in lines if line.startswith("data: ")][-1][len("data: ") :])
        return last

    def skipped(self, *, limit: int = 1000) -> list[tuple[str, str]]:
        """(path, reason) of the files that could not be used, by path.

        Args:
            limit: The largest number of files, up to 1,000.

        Raises:
            ApiError: The server refuses the request.

        Example:
            >>> all(reason for _, reason in client.skipped())
            True
        """
        told = self._ask("GET", "/v1/skipped", params={"limit": limit}).json()["data"]
        return [(row["path"], row["reason"]) for row in told]

    def retry_skipped(self) -> None:
        """Lets everything be tried again that was skipped, in the background; `wait_for_indexing` waits for that.

        Raises:
            ApiError: The server is read-only.

        Example:
            >>> client.retry_skipped()
        """
        self._ask("POST", "/v1/skipped/retry")

    def export(self, where: str | None = None, *, form: str = "csv") -> str:
        """The files that pass a filter as text.

        Args:
            where: A filter, as of `search`.
            form: `paths` (one a line), `csv` or `json`.

        Raises:
            ApiError: The filter cannot be read.

        Example:
            >>> len(client.export(form="paths").splitlines()) == client.files(limit=1).total
            True
        """
        return self._ask("GET", "/v1/export", params=_given(where=where) | {"format": form}).text


def _given(**values: Any) -> dict[str, Any]:
    """The parameters that are not None."""
    return {name: value for name, value in values.items() if value is not None}
