"""One run over a folder: new and changed files are read, embedded and stored, all others are left alone.

Three things go on at once: files are hashed in threads, decoded in processes (`bind.model.pipeline`), and encoded here.
What is held in memory at any time is a few decoded files, one batch a modality, and what the next commit stores.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bind.model import pipeline
from preprocess.metadata import POSITIONS
from preprocess.readers import tracks
from preprocess.source import Limits, MediaError, Source
from serve.library import removal, roots, scan
from serve.library.dates import date_of
from serve.library.places import place_of
from serve.library.records import ContentKey, FileRow, NewFile, NewSegment
from serve.library.reports import IndexReport
from serve.library.roots import Scope
from serve.library.rules import relative
from serve.library.scan import Excluded, Found, LeftOut, Probed, TemporaryError, Unfollowed, Unlisted
from serve.library.writer import Writer

if TYPE_CHECKING:
    from bind.model.model import BindModel

Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""
Embed = Callable[[Iterator[tuple[Source, str | None]]], Iterator[pipeline.Embedded | pipeline.Failed]]
"""(source, modality) pairs -> their results, as `bind.model.pipeline.embed` yields them."""

COMMIT_FILES = 128
"""Files of one transaction at most, which is the work that a killed run does again."""
COMMIT_S = 2.0
"""A commit (which waits for the disk) is made when this many files are ready, or after this time."""
_HASH_THREADS = 2
"""Hashing waits for the disk and releases the interpreter, so two threads keep a disk busy."""
_HASH_AHEAD = 16
"""Files that are hashed before their turn, which bounds the memory of those that wait."""
_UNKNOWN = ""
"""The reader of a file that was not read: it is tried again in every run."""


@dataclass
class _Job:
    """A content that is being embedded: its files, the modalities as which it is read, and their results."""

    key: ContentKey
    parts: tuple[str, ...]
    files: list[tuple[Probed, FileRow | None]]
    waiting: int
    content: int | None = None
    segments: list[NewSegment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    media_facts: dict[str, Any] = field(default_factory=dict)
    stored_as: ContentKey | None = None
    failures: dict[str, str] = field(default_factory=dict)


class Run:
    """Indexes what a scope says with the writer of a library in the folder `library`.

    With `files`, these are indexed in place of those of the scope's root, and nothing is forgotten.
    """

    def __init__(
        self,
        writer: Writer,
        model: BindModel,
        scope: Scope,
        library: Path,
        *,
        limits: Limits,
        batch_size: int,
        retry: bool,
        progress: Progress | None,
        embed: Embed | None = None,
        files: Callable[[], Iterator[Found]] | None = None,
    ) -> None:
        self._writer = writer
        self._model = model
        self._scope = scope
        self._library = library
        self._limits = limits
        self._batch_size = batch_size
        self._retry = retry
        self._files = files
        self._progress = progress
        self._positions = scope.positions
        self._is_upload = Path(scope.root).is_relative_to(library)
        self._embed = embed or (
            lambda sources: pipeline.embed(model, sources, plan="segments", batch_size=batch_size, limits=limits)
        )
        # A file that failed is tried again when there is another program or modality to try it with.
        self._reader = f"{metadata.version('crossbind')} {','.join(model.modalities)}"
        self._report = IndexReport()
        self._seen: set[int] = set()
        # Contents that files had before they changed.
        self._left: set[int] = set()
        self._unseen: list[str] = []
        # How many new paths each known content was found under: so many of its old paths were renamed.
        self._arrived: Counter[int] = Counter()
        self._jobs: dict[ContentKey, _Job] = {}
        self._in_pipeline: dict[int, tuple[_Job, str]] = {}
        self._ready: list[_Job] = []
        self._refused: list[NewFile] = []
        self._committed_at = time.monotonic()
        self._done = 0
        self._total = 0

    def run(self) -> IndexReport:
        """Runs the indexing -> its report. Raises LibraryError when the library cannot be written; commits stay."""
        started = time.monotonic()
        if self._progress:
            self._total = sum(1 for found in self._walk() if isinstance(found, (Found, Unlisted)))
        try:
            for result in self._embed(self._sources()):
                self._collect(result)
        except KeyboardInterrupt:
            self._commit()
            raise
        self._commit()
        self._finish()
        self._report.seconds = time.monotonic() - started
        return self._report

    def _sources(self) -> Iterator[tuple[Source, str | None]]:
        """Yields each new content for the pipeline, and records all other files meanwhile."""
        position = 0
        for found, row, probed in self._probed():
            if isinstance(probed, MediaError):
                self._refuse(found, row, probed.reason, isinstance(probed, TemporaryError))
                continue
            key = ContentKey(probed.digest, str(probed.modality), _canonical(asdict(probed.hints)))
            if (job := self._jobs.get(key)) is not None:
                job.files.append((probed, row))
                continue
            parts = self._parts(probed.modality)
            known = self._writer.content(key)
            if known is not None and set(parts) <= set(known[1]):
                self._jobs[key] = job = _Job(key, parts, [(probed, row)], waiting=0, content=known[0])
                self._make_ready(job)
                continue
            self._jobs[key] = job = _Job(key, parts, [(probed, row)], len(parts), notes=list(probed.notes))
            for part in parts:
                self._in_pipeline[position] = (job, part)
                position += 1
                yield Source(Path(found.path), found.path, probed.hints), part

    def _probed(self) -> Iterator[tuple[Found, FileRow | None, Probed | MediaError]]:
        """Opens and hashes new and changed files; a few are hashed before the pipeline asks for them."""
        waiting: deque[tuple[Found, FileRow | None, Future[Probed | MediaError]]] = deque()
        with ThreadPoolExecutor(_HASH_THREADS, "hash") as threads:
            for found, row in self._new():
                waiting.append((found, row, threads.submit(_probe, found, self._limits)))
                if len(waiting) > _HASH_AHEAD:
                    found, row, future = waiting.popleft()
                    yield found, row, future.result()
            for found, row, future in waiting:
                yield found, row, future.result()

    def _new(self) -> Iterator[tuple[Found, FileRow | None]]:
        """Yields the files that have to be opened: those whose size, time or sidecar differs from the stored stamp."""
        for found in self._walk():
            if not isinstance(found, Found):
                self._pass_over(found)
                continue
            row = self._writer.file(found.path)
            if row is not None:
                self._seen.add(row.id)
                if row.stamp == _stamp(found) and self._is_settled(row, found):
                    self._tick()
                    continue
            yield found, row

    def _walk(self) -> Iterator[Found | Unlisted | LeftOut | Excluded | Unfollowed]:
        if self._files is not None:
            return self._files()
        scope = self._scope
        if not os.path.exists(scope.root) and scope.allow_removal:
            return iter(())
        return scan.walk(scope.root, self._library, scope.follow_links, scope.rules, scope.places)

    def _pass_over(self, found: Unlisted | LeftOut | Excluded | Unfollowed) -> None:
        """Counts an entry of the folder that is no file to be opened."""
        if isinstance(found, LeftOut):
            self._report.left_out += 1
        elif isinstance(found, Excluded):
            self._report.excluded[found.rule] = self._report.excluded.get(found.rule, 0) + 1
        else:
            self._unseen.append(found.path)
        if isinstance(found, Unlisted):
            row = self._writer.file(found.path)
            folder = "" if found.path == self._scope.root else relative(os.path.dirname(found.path), self._scope.root)
            self._skip(NewFile(found.path, folder, (0, 0, ""), reason=found.reason, reader=_UNKNOWN), row)

    def _is_settled(self, row: FileRow, found: Found) -> bool:
        if row.content is not None:
            settled = set(self._parts(row.modality)) <= set(row.parts)
            self._report.unchanged += settled
            return settled
        if row.reason is None or row.reader != self._reader or self._retry:
            return False
        self._report.skipped_before.append((found.path, row.reason))
        return True

    def _parts(self, modality: str) -> tuple[str, ...]:
        """The modalities as which a file becomes searchable: a video is also searchable by its sound track."""
        has_sound = modality == "video" and "audio" in self._model.modalities
        return (modality, "audio") if has_sound else (modality,)

    def _collect(self, result: pipeline.Embedded | pipeline.Failed) -> None:
        job, part = self._in_pipeline[result.position]
        if isinstance(result, pipeline.Failed):
            job.failures[part] = result.error.reason
        else:
            segment = NewSegment(result.modality, result.start_s, result.end_s, result.vector, result.at)
            job.segments.append(segment)
            job.notes.extend(note for note in result.notes if note not in job.notes)
            job.media_facts |= {key: value for key, value in result.metadata.items() if self._may_keep(key)}
            if result.modality != part and part == job.key.modality:  # its name suggested another
                job.stored_as, job.parts = replace(job.key, modality=result.modality), (result.modality,)
            if not result.last:
                return
        del self._in_pipeline[result.position]
        job.waiting -= 1
        if job.waiting == 0:
            self._close(job)

    def _close(self, job: _Job) -> None:
        """Queues a content whose results are complete for the next commit, unless its file changed meanwhile."""
        read, _ = job.files[0]
        reason = scan.changed(read)
        if reason is None and job.segments:
            job.notes.extend(f"{part}: {why}" for part, why in job.failures.items() if why != tracks.SILENT)
            self._report.embedded += 1
            if job.stored_as and (known := self._writer.content(job.stored_as)):
                job.content = known[0]  # the same picture under a name that suggested nothing
            self._make_ready(job)
            return
        for probed, row in job.files:
            self._refuse(probed.found, row, reason or job.failures[job.parts[0]], temporary=reason is not None)
        del self._jobs[job.key]

    def _refuse(self, found: Found, row: FileRow | None, reason: str, temporary: bool) -> None:
        reader = _UNKNOWN if temporary else self._reader
        file = NewFile(found.path, found.folder, _stamp(found), reason=reason, reader=reader)
        self._skip(file, row)

    def _skip(self, file: NewFile, row: FileRow | None) -> None:
        """Reports a file that could not be used and stores the reason, so that later runs do not report it again.

        A file that could be used before stays as it was where only this time something came in between.
        """
        known = row is not None and row.content is None and row.reason == file.reason and not self._retry
        (self._report.skipped_before if known else self._report.skipped).append((file.path, str(file.reason)))
        self._tick()
        if file.reader == _UNKNOWN and row is not None and (known or row.content is not None):
            self._seen.add(row.id)
            return
        self._refused.append(file)
        self._commit_if_due()

    def _make_ready(self, job: _Job) -> None:
        self._ready.append(job)
        self._commit_if_due()

    def _commit_if_due(self) -> None:
        late = time.monotonic() - self._committed_at > COMMIT_S
        if late or len(self._ready) + len(self._refused) >= COMMIT_FILES:
            self._commit()

    def _commit(self) -> None:
        with self._writer.transaction():
            for job in self._ready:
                self._left.update(row.content for _, row in job.files if row is not None and row.content is not None)
                content = job.content
                if content is None:
                    if place := place_of(job.media_facts):
                        job.media_facts["place"] = place
                    media_facts = _canonical(job.media_facts)
                    key = job.stored_as or job.key
                    content = self._writer.put_content(key, job.parts, job.segments, job.notes, media_facts)
                media_facts = json.loads(self._writer.media_facts(content))
                for probed, row in job.files:
                    self._store(probed, row, content, media_facts, is_new=job.content is None)
            for file in self._refused:
                self._seen.add(self._writer.put_file(file))
        for job in self._ready:
            del self._jobs[job.key]
        self._ready.clear()
        self._refused.clear()
        self._committed_at = time.monotonic()

    def _may_keep(self, key: str) -> bool:
        return self._positions or key not in POSITIONS

    def _store(
        self, probed: Probed, row: FileRow | None, content: int, media_facts: dict[str, Any], is_new: bool
    ) -> None:
        beside = {key: value for key, value in probed.others.items() if self._may_keep(key)} | probed.metadata
        caption = beside.get("caption")
        caption = caption if isinstance(caption, str) else ""
        free = _canonical({key: value for key, value in beside.items() if key != "caption"})
        self._tick()
        if row is None or row.content is None:
            self._report.added += 1
            if not is_new:
                self._arrived[content] += 1
        elif is_new or (row.content, row.caption, row.metadata) != (content, caption, free):
            self._report.updated += 1
        else:
            self._report.unchanged += 1
        found = probed.found
        date, source = date_of(probed, media_facts)
        file = NewFile(found.path, found.folder, _stamp(found), content, date, caption, free, date_source=source)
        self._seen.add(self._writer.put_file(file))

    def _finish(self) -> None:
        """Removes files that are gone, once a run has seen the whole folder. Raises RemovalError."""
        if self._files is not None:
            return
        if self._is_upload:
            return  # it is one file, which is there, and looking for others would take longer the larger the library is
        scope = self._scope
        made = removal.plan(self._writer, scope, self._library, self._seen, self._arrived, self._is_hidden)
        self._report.added -= made.renamed
        self._report.renamed += made.renamed
        self._report.removed += made.removed
        with self._writer.transaction():
            self._writer.remove_files(made.files)
            if scope.is_watched:
                for content in made.contents | self._left:
                    self._writer.drop_orphans(content)
            else:
                self._writer.drop_orphans()
            if scope.places is None and scope.is_remembered:
                roots.record(self._writer, scope)
        if not scope.is_watched:
            for place in scope.places or (scope.root,):
                self._report.duplicates += self._writer.duplicates(place)

    def _is_hidden(self, path: str) -> bool:
        """Whether a file lies where this run could not look, so that it may still be there."""
        unseen = [*self._unseen, str(self._library)]  # the library keeps files of its own
        return any(path == place or path.startswith(place.rstrip(os.sep) + os.sep) for place in unseen)

    def _tick(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, max(self._done, self._total))


def _probe(found: Found, limits: Limits) -> Probed | MediaError:
    try:
        return scan.probe(found, limits)
    except MediaError as error:
        return error


def _stamp(found: Found) -> tuple[int, int, str]:
    return found.size_bytes, found.mtime_ns, found.sidecar


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in values.items() if value is not None}, sort_keys=True)
