"""The part of a library that keeps it in step with folders: indexing, watching, roots, and what was skipped."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.source import Limits
from serve.engine import thumbnails
from serve.library import reading, removal, roots, watching
from serve.library.catalogue import Catalogue
from serve.library.errors import LibraryError
from serve.library.indexing import Progress, Run
from serve.library.reports import IndexReport
from serve.library.roots import Root, RootState, Scope
from serve.library.rules import Rules, remembered

if TYPE_CHECKING:
    from bind.model.model import BindModel
    from serve.library.live_index import LiveIndex


class Folders:
    """Keeps the library of a catalogue in step with folders; see `serve.library.library.Library`."""

    def __init__(self, catalogue: Catalogue, model: BindModel, live_index: LiveIndex) -> None:
        self._catalogue = catalogue
        self._live_index = live_index
        self.model = model
        self.folder = catalogue.folder

    def index(
        self,
        folder: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        batch_size: int = 64,
        limits: Limits | None = None,
        retry: bool = False,
        follow_links: bool = False,
        exclude: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
        allow_removal: bool = False,
        positions: bool | None = None,
        ocr: bool | None = None,
        speech: str | os.PathLike[str] | None = None,
    ) -> IndexReport:
        """Brings the library up to date with a folder (or a file): idempotent, and resumable after any interruption.

        A file whose size, time and sidecar are unchanged is not opened. `serve.library.rules` says what is left out.
        The folder is remembered as a root; of a folder inside of a root, that part of the root is brought up to date.

        Args:
            folder: The folder (or file) to make searchable.
            progress: A function that is called with the number of finished files, and of all files.
            batch_size: The number of views that the model encodes together.
            limits: Bounds on a file: bytes, pixels, duration, time to decode.
            retry: Files that failed before are tried again although they did not change.
            follow_links: Links that lead out of the folder are followed; otherwise the report has their number.
            exclude: Patterns of what is left out, or with `!` taken in, as in a `.gitignore`. None: of the last run.
            include: Patterns of the only files to take. None: those of the last run, at first all.
            allow_removal: The folder may be missing or empty, or most of its files may be gone: they leave the
                library. Otherwise that is an error, because a drive may not be mounted.
            positions: Whether it is stored where pictures were taken. None: as in the last run, at first yes.
            ocr: Words in pictures are read, in all that no run has read so. None: as in the last run, at first not.
            speech: Words are heard in sounds and films that way, with the model in this folder, or `en-us`; "": not.

        Returns:
            The numbers of added, updated, removed and unchanged files, and each skipped file with its reason.

        Raises:
            RemovalError: Too many files are gone; nothing was removed, and what was added stays.
            LibraryError: There is no such folder, another process is writing, or the disk is full.
            ValueError: The folder `speech` holds no model, or (MissingExtra) an extra is not installed.

        Example:
            >>> library.index("media", exclude=["*.tmp", "/private/"]).unchanged
            3
        """
        chosen = reading.chosen(ocr, speech)
        place = self._place(folder)
        root = roots.containing(roots.of(self._catalogue), place)
        if root is not None and root.path != place and (exclude is not None or include is not None):
            raise LibraryError(f"{place} belongs to the root {root.path}: give exclude and include when you index that")
        known = root or Root(place)
        rules = Rules(remembered(exclude, known.exclude), remembered(include, known.include))
        places = None if known.path == place else (place,)
        self._refuse_missing(place, allow_removal)
        kept = _kept(known) | chosen | ({} if positions is None else {"positions": positions})
        scope = Scope(known.path, rules, places, follow_links, allow_removal, **kept)
        return self._run(scope, limits, batch_size, retry, progress)

    def watch(
        self,
        folder: str | os.PathLike[str],
        *,
        stop: threading.Event,
        report: Callable[[IndexReport | LibraryError], None] | None = None,
        batch_size: int = 64,
        limits: Limits | None = None,
        follow_links: bool = False,
        exclude: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
        allow_removal: bool = False,
        positions: bool | None = None,
        ocr: bool | None = None,
        speech: str | os.PathLike[str] | None = None,
    ) -> None:
        """Indexes a folder, then keeps the library in step with it until `stop` is set: within a few seconds.

        A file that is still being written is left alone until its size and time rest for a second. Between runs other
        processes may write to the library. While the folder is missing, empty or on another drive, nothing is removed,
        and indexing goes on when it is back.

        Args:
            folder: A folder.
            stop: Ends the watch when it is set, within a second and after the files that are being stored.
            report: Is called with what each run did, and with each error that only ends a run. None means no one.
            batch_size: As in `index`, like all that follow.
            limits: As in `index`.
            follow_links: As in `index`.
            exclude: As in `index`.
            include: As in `index`.
            allow_removal: As in `index`.
            positions: As in `index`.
            ocr: As in `index`.
            speech: As in `index`.

        Raises:
            LibraryError: The folder cannot be watched, or the library cannot be written.
        """
        place = self._place(folder)
        reading.chosen(ocr, speech)
        if not os.path.isdir(place):
            raise LibraryError(f"{place}: expected a folder to watch")

        limit: dict[str, Any] = {"batch_size": batch_size, "limits": limits}
        rules = {"exclude": exclude, "include": include, "allow_removal": allow_removal, "follow_links": follow_links}
        kept = {"positions": positions, "ocr": ocr, "speech": speech}
        whole: dict[str, Any] = limit | rules | kept

        def index_places(places: Iterable[str]) -> IndexReport:
            root = roots.containing(roots.of(self._catalogue), place) or Root(place)
            scope = Scope(
                root.path, root.rules, tuple(places), follow_links, allow_removal, **_kept(root), is_watched=True
            )
            return self._run(scope, limits, batch_size, False, None)

        watching.watch(
            place, self.folder, lambda: self.index(place, **whole), index_places, report or (lambda _: None), stop
        )

    def roots(self) -> list[RootState]:
        """The folders that were indexed, by path: their patterns, their numbers of files, and whether each is there."""
        return roots.states(self._catalogue)

    def forget(self, folder: str | os.PathLike[str]) -> int:
        """Forgets every file in a folder, and the folder as a root -> how many searchable files that were.

        Nothing in the folder changes, and it need not exist. Raises LibraryError for a folder of which the library
        knows nothing, and WriterBusyError.
        """
        with self._catalogue.write() as writer:
            count = roots.forget(writer, os.path.abspath(os.path.expanduser(os.fspath(folder))), self.folder)
            self._live_index.follow(writer)
        return count

    def skipped(self) -> list[tuple[str, str]]:
        """(path, reason) of every file of the indexed folders that could not be used, by path."""
        return self._catalogue.skipped()

    def retry_skipped(self, *, limits: Limits | None = None, progress: Progress | None = None) -> IndexReport:
        """Tries all skipped files again -> what came of it. Files that are gone are skipped no more."""
        total = IndexReport()
        groups = roots.skipped_by_root(roots.of(self._catalogue), (path for path, _ in self.skipped()))
        for root, paths in groups.items():
            places = tuple(paths) if root.path != paths[0] else None
            known = root.last_run != ""
            scope = Scope(root.path, root.rules, places, False, True, is_remembered=known, **_kept(root))
            total.join(self._run(scope, limits, 64, retry=True, progress=progress))
        return total

    def read_again(self, path: str, folder: str) -> str | None:
        """Brings a file of the folder called `folder` up to date -> why it is skipped, None where it is not.

        Raises as `index` does.
        """
        root = roots.containing(roots.of(self._catalogue), path) or Root(path)
        scope = Scope(path, is_remembered=False, **_kept(root))
        report = self._run(scope, None, 64, retry=False, progress=None)
        with self._catalogue.write() as writer, writer.transaction():
            writer.set_folder(path, folder)
        return dict(report.skipped + report.skipped_before).get(path)

    def _place(self, folder: str | os.PathLike[str]) -> str:
        """The absolute path of what is to be indexed. Raises LibraryError for the library's own folder."""
        place = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(self.folder)):
            raise LibraryError(f"{place} belongs to the library itself; index the folder with your files")
        return place

    def _refuse_missing(self, place: str, allow_removal: bool) -> None:
        if os.path.exists(place):
            return
        state = "there is no such folder or file"
        known, _ = self._catalogue.count_below(place)
        if not known:
            raise LibraryError(f"{place}: {state}")
        if not allow_removal:
            raise removal.refusal(place, state, known, known)

    def _run(
        self,
        scope: Scope,
        limits: Limits | None,
        batch_size: int,
        retry: bool,
        progress: Progress | None,
    ) -> IndexReport:
        with self._catalogue.write() as writer:
            run = Run(
                writer,
                self.model,
                scope,
                self.folder,
                limits=limits or Limits(),
                batch_size=batch_size,
                retry=retry,
                progress=progress,
            )
            try:
                report = run.run()
            except removal.RemovalError:
                self._live_index.follow(writer)
                raise
            channels, problems = reading.channels(scope.ocr, scope.speech)
            report.wordless += [(scope.root, problem) for problem in problems]
            for channel in channels:
                places = scope.places or (scope.root,)
                report.join(reading.run(writer, self.folder, channel, places, limits or Limits(), retry))
            self._live_index.follow(writer)
            if not scope.is_watched:
                with contextlib.suppress(OSError):
                    thumbnails.sweep(self.folder, self._catalogue.existing)
        return report


def _kept(root: Root) -> dict[str, Any]:
    """What is remembered of a root beside its rules."""
    return {"positions": root.positions, "ocr": root.ocr, "speech": root.speech}
