"""The part of the client that lists, marks and exports a library's files."""

from __future__ import annotations

from typing import Any

import httpx

from serve.http_client.values import FoundFile, FoundPage, file_of


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


def _given(**values: Any) -> dict[str, Any]:
    """The parameters that are not None."""
    return {name: value for name, value in values.items() if value is not None}
