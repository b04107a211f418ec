"""Keeps a library in step with a folder while it changes: what the operating system reports is indexed once it rests.

The watcher says which paths changed, never what happened to them: each is looked at again until its size and time stay
the same for `REST_S` (for `GONE_S` where there is nothing, so that a file that was moved arrives in the same run as its
old path goes). All that rest are one run over these places of the root.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from serve.library.errors import LibraryError, WriterBusyError
from serve.library.removal import RemovalError
from serve.library.reports import IndexReport
from serve.library.rules import IGNORE_FILE, NO_MEDIA

REST_S = 1.0
"""Seconds that a file has to stay the same before it is read: it may still be written."""
GONE_S = 2.0
"""Seconds that a file has to be gone before it counts as removed: a file that was moved arrives within them."""
LOOK_S = 0.25
"""Between two looks at what has changed."""
ALL_S = 3600.0
"""All of the folder is looked at again after this time: some network drives do not report every change."""
_BACK_S = 1.0
"""Seconds between two looks at whether a drive is back."""
_SIDECARS = (".json", ".xmp", ".txt", ".csv", ".tsv", ".parquet")
"""A change of one of these, which describe others or are read with them, may be a change of another file beside it."""

Stamp = tuple[int, int] | None
"""Size in bytes and time of change in ns; None where there is nothing."""


class Changed:
    """The paths that changed and do not rest yet, none of them in the folder `without`."""

    def __init__(self, without: Path) -> None:
        self._without = without
        self._waiting: dict[str, tuple[Stamp, float]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def touch(self, path: str, now: float) -> None:
        """Notes that a path has changed, at a time in seconds; of a folder, all that is in it."""
        waiting = [path]
        while waiting:
            path = waiting.pop()
            if Path(path).is_relative_to(self._without):
                continue
            self._waiting[path] = (_stamp(path), now)
            if _is_folder(path):
                with contextlib.suppress(OSError), os.scandir(path) as entries:
                    waiting += [entry.path for entry in entries if entry.path not in self._waiting]

    def resting(self, now: float) -> list[str]:
        """The paths that have not changed for long enough."""
        found = []
        for path, (known, since) in list(self._waiting.items()):
            stamp = _stamp(path)
            if stamp != known:
                self.touch(path, now)
            elif now - since >= (GONE_S if stamp is None else REST_S):
                found.append(path)
        return found

    def settle(self, paths: Iterable[str]) -> list[str]:
        """Takes paths that rest out -> the places to look at, none of them in another one.

        A folder that is there is looked at through what is in it, each when it rests.
        """
        places: set[str] = set()
        with_sidecars: set[str] = set()
        for path in paths:
            del self._waiting[path]
            name = os.path.basename(path)
            if name in (IGNORE_FILE, NO_MEDIA):
                places.add(os.path.dirname(path))
            elif not _is_folder(path):
                places.add(path)
                if name.lower().endswith(_SIDECARS):
                    with_sidecars.add(os.path.dirname(path))
        for folder in with_sidecars:
            places.update(_files_of(folder))
        return [place for place in sorted(places) if not any(str(p) in places for p in Path(place).parents)]


def watch(
    root: str,
    library: Path,
    index_all: Callable[[], IndexReport],
    index_places: Callable[[Iterable[str]], IndexReport],
    report: Callable[[IndexReport | LibraryError], None],
    stop: threading.Event,
) -> None:
    """Indexes all of a root, then what changes in it, until `stop` is set. See `Folders.watch`."""
    is_first = True
    while not stop.is_set():
        identity = _identity(root)
        if identity is None:
            stop.wait(_BACK_S)
            continue
        with contextlib.closing(_changes(root, stop)) as changes:
            if next(changes, None) is None:
                continue
            # The watcher is there: nothing that happens from here on is missed.
            try:
                report(_patiently(index_all, stop))
            except RemovalError as error:
                report(error)
            except LibraryError:
                if is_first:
                    raise
                stop.wait(_BACK_S)
                continue
            is_first = False
            _follow(root, identity, changes, Changed(library), index_places, report, stop)
        if not stop.is_set() and _identity(root) != identity:
            report(LibraryError(f"{root} is not there; nothing is removed, and indexing goes on when it is back"))


def _follow(
    root: str,
    identity: tuple[int, int],
    changes: Iterator[set[str]],
    changed: Changed,
    index_places: Callable[[Iterable[str]], IndexReport],
    report: Callable[[IndexReport | LibraryError], None],
    stop: threading.Event,
) -> None:
    """Indexes what changes, until the root is another folder or gone, or all of it is to be looked at again."""
    started = time.monotonic()
    last_error = ""
    for paths in changes:
        now = time.monotonic()
        for path in paths:
            if path != root:
                changed.touch(path, now)
        if stop.is_set() or _identity(root) != identity or (now - started > ALL_S and not changed):
            return
        places = changed.settle(changed.resting(now))
        if not places:
            continue
        try:
            done = index_places(places)
        except WriterBusyError:
            for place in places:
                changed.touch(place, now)
        except FileNotFoundError:
            return  # the root itself went away meanwhile
        except RemovalError as error:
            if str(error) != last_error:
                report(error)
            last_error = str(error)
        else:
            if done.added or done.updated or done.renamed or done.removed or done.skipped:
                report(done)


def _patiently(index: Callable[[], IndexReport], stop: threading.Event) -> IndexReport:
    """Indexes, after whoever is writing now."""
    while True:
        try:
            return index()
        except WriterBusyError:
            if stop.wait(_BACK_S):
                return IndexReport()


def _changes(root: str, stop: threading.Event) -> Generator[set[str], None, None]:
    """The paths that changed since the last time, every `LOOK_S`; first an empty set, when the watcher is there."""
    from watchfiles import watch as watch_files

    # Where the system has too few watches for the folders, they are looked through instead.
    for polling in (None, True):
        changes = watch_files(
            root,
            watch_filter=None,
            debounce=200,
            step=50,
            stop_event=stop,
            rust_timeout=int(LOOK_S * 1000),
            yield_on_timeout=True,
            force_polling=polling,
            poll_delay_ms=1000,
            ignore_permission_denied=True,
        )
        had_any = False
        try:
            for found in changes:
                had_any = True
                yield {path for _, path in found}
            return
        except (RuntimeError, OSError):  # a name that is no UTF-8, a root that is gone
            if had_any or not os.path.isdir(root):
                return


def _identity(root: str) -> tuple[int, int] | None:
    """(device, inode) of a folder that is there and not empty, as the place of a drive that is not mounted is."""
    try:
        status = os.stat(root)
        with os.scandir(root) as entries:
            return (status.st_dev, status.st_ino) if next(entries, None) is not None else None
    except OSError:
        return None


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _files_of(folder: str) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_file()]
    return []
