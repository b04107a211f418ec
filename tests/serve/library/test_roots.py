"""Roots: what a missing folder costs (nothing), what a moved one costs (no embedding), what is forgotten."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bind.model.model import BindModel
from serve.library.errors import LibraryError
from serve.library.library import Library
from serve.library.removal import RemovalError
from serve.library.roots import Root
from tests.serve import tiny


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for number in range(13):
        tiny.picture(tmp_path / "media" / ("trip" if number < 9 else "home") / f"{number}.png", number)
    return tmp_path / "media"


def empty(folder: Path) -> None:
    """What is left of a share that is not mounted any more."""
    folder.rename(folder.with_name("away"))
    folder.mkdir()


def is_as_before(library: Library) -> bool:
    hits = library.search("x", k=50, keywords=False)
    return len(library) == len(hits) == 13


class TestGuard:
    def test_an_unmounted_share_loses_nothing_and_costs_nothing(self, library: Library, media: Path) -> None:
        empty(media)
        with pytest.raises(RemovalError, match=r"13 files.*13 are missing.*--allow-removal.*crossbind forget"):
            library.index(media)
        assert is_as_before(library)
        media.rmdir()
        (media.parent / "away").rename(media)
        report = library.index(media)
        assert (report.unchanged, report.embedded, report.removed) == (13, 0, 0)

    def test_what_a_mount_point_always_has_is_no_file(self, library: Library, media: Path) -> None:
        empty(media)
        (media / "lost+found").mkdir()
        (media / ".Trash").mkdir()
        with pytest.raises(RemovalError):
            library.index(media)
        assert is_as_before(library)

    def test_a_missing_folder_gets_the_same_sentence(self, library: Library, media: Path) -> None:
        media.rename(media.with_name("away"))
        with pytest.raises(RemovalError, match=r"no such folder or file; of the 13 files"):
            library.index(media)
        with pytest.raises(RemovalError, match=r"of the 9 files"):
            library.index(media / "trip")
        assert is_as_before(library)

    def test_a_folder_that_lost_most_of_its_files_stops_and_keeps_what_was_added(
        self, library: Library, media: Path
    ) -> None:
        for number in range(10):
            next(media.rglob(f"{number}.png")).unlink()
        tiny.picture(media / "new.png", 50)
        with pytest.raises(RemovalError, match=r"most of this folder is gone; of the 14 files .* 10 are missing"):
            library.index(media)
        assert len(library) == 14
        assert "new.png" in {Path(hit.path).name for hit in library.search("x", k=50)}
        assert library.index(media, allow_removal=True).removed == 10
        assert len(library) == 4

    def test_few_removed_files_are_just_removed(self, library: Library, media: Path) -> None:
        for number in range(9):
            next(media.rglob(f"{number}.png")).unlink()
        assert library.index(media).removed == 9

    @pytest.mark.parametrize("how", ["empty", "missing"])
    def test_removal_can_be_allowed(self, library: Library, media: Path, how: str) -> None:
        empty(media)
        if how == "missing":
            media.rmdir()
        assert library.index(media, allow_removal=True).removed == 13
        assert len(library) == 0

    def test_a_part_of_a_root_may_go(self, library: Library, media: Path) -> None:
        shutil.rmtree(media / "home")
        assert library.index(media / "home", allow_removal=True).removed == 4
        assert library.index(media).unchanged == 9

    def test_what_may_not_be_looked_at_is_not_gone(
        self, library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = os.scandir

        def refuse(path: str) -> object:
            if path == str(media):
                raise PermissionError(13, "Permission denied", path)
            return listed(path)

        monkeypatch.setattr(os, "scandir", refuse)
        assert library.index(media).removed == 0
        assert is_as_before(library)


class TestMoves:
    def test_a_root_that_moved_is_renamed_and_its_old_paths_go(self, library: Library, media: Path) -> None:
        moved = media.rename(media.with_name("elsewhere"))
        report = library.index(moved)
        assert (report.renamed, report.added, report.removed, report.embedded) == (13, 0, 0, 0)
        assert {os.path.dirname(os.path.dirname(hit.path)) for hit in library.search("x", k=50)} == {str(moved)}
        assert all(hit.also == () for hit in library.search("x", k=50))
        assert [root.path for root in library.roots()] == [str(moved)]

    def test_a_library_that_moved_together_with_its_media(self, tmp_path: Path, model: BindModel) -> None:
        for number in range(5):
            tiny.picture(tmp_path / "disk" / "media" / f"{number}.png", number)
        with Library.open(tmp_path / "disk" / "library", model) as library:
            library.index(tmp_path / "disk" / "media")
        (tmp_path / "disk").rename(tmp_path / "other disk")
        with Library.open(tmp_path / "other disk" / "library", model) as library:
            report = library.index(tmp_path / "other disk" / "media")
            assert (report.renamed, report.added, report.embedded, len(library)) == (5, 0, 0, 5)
            assert library.search("x", k=9)[0].also == ()

    def test_files_that_moved_from_one_root_to_another(self, library: Library, media: Path, tmp_path: Path) -> None:
        (tmp_path / "archive").mkdir()
        shutil.move(media / "trip", tmp_path / "archive" / "trip")
        assert library.index(tmp_path / "archive").renamed == 9
        report = library.index(media)
        assert (report.removed, report.unchanged, len(library)) == (0, 4, 13)

    def test_a_copy_elsewhere_is_added_and_the_first_stays(self, library: Library, media: Path, tmp_path: Path) -> None:
        shutil.copytree(media, tmp_path / "copy")
        report = library.index(tmp_path / "copy")
        assert (report.added, report.renamed, len(library)) == (13, 0, 26)

    def test_a_path_that_may_not_be_looked_at_is_not_dead(
        self, library: Library, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(media, tmp_path / "copy")

        def refuse(path: str) -> object:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(os, "lstat", refuse)
        assert library.index(tmp_path / "copy").added == 13


class TestRoots:
    def test_a_library_remembers_its_roots(self, library: Library, media: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        tiny.picture(other / "a.png", 60)
        (other / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        library.index(other, exclude=["*.tmp"], include=["*.png"])
        shutil.rmtree(other)
        first, second = Library.open(tmp_path / "library", library.model).roots()
        assert (first.path, first.files, first.skipped, first.is_there) == (str(media), 13, 0, True)
        assert (second.path, second.files, second.skipped, second.is_there) == (str(other), 1, 1, False)
        assert (second.exclude, second.include) == (("*.tmp",), ("*.png",))
        assert second.last_run >= first.last_run > "2020"

    def test_a_part_of_a_root_belongs_to_it(self, library: Library, media: Path) -> None:
        tiny.picture(media / "trip" / "new.png", 61)
        assert library.index(media / "trip").added == 1
        assert [root.path for root in library.roots()] == [str(media)]
        assert library.search("x", where="name = 'new.png'")[0].path == str(media / "trip" / "new.png")
        assert len(library.search("x", k=50, where="folder = 'trip'")) == 10  # of the root, as its other files
        with pytest.raises(LibraryError, match="belongs to the root"):
            library.index(media / "trip", exclude=["*.png"])

    def test_a_root_takes_in_those_inside(self, library: Library, media: Path) -> None:
        library.index(media.parent)
        assert [root.path for root in library.roots()] == [str(media.parent)]
        assert len(library) == 13

    def test_a_library_of_before_has_none_until_it_is_indexed(self, library: Library, media: Path) -> None:
        with library._catalogue.write() as writer, writer.transaction():
            writer.connection.execute("DELETE FROM facts WHERE key = 'roots'")
        assert library.roots() == []
        empty(media)
        with pytest.raises(RemovalError):
            library.index(media)

    def test_a_path_that_is_not_utf8(self, tmp_path: Path, model: BindModel) -> None:
        folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
        tiny.picture(Path(folder) / "a.png", 62)
        library = Library.open(tmp_path / "library", model)
        library.index(folder)
        assert [(root.path, root.files) for root in library.roots()] == [(folder, 1)]

    def test_forget(self, library: Library, media: Path) -> None:
        assert library.forget(media / "trip") == 9
        assert len(library) == 4
        assert len(library.search("x", k=50)) == 4
        shutil.rmtree(media)
        assert library.forget(media) == 4
        assert library.roots() == []
        with pytest.raises(LibraryError, match="knows no file of it; its roots: none"):
            library.forget(media)

    def test_roots_are_compared_by_whole_names(self) -> None:
        from serve.library.roots import containing

        roots = [Root("/a/media"), Root("/b")]
        assert containing(roots, "/a/media/x") == containing(roots, "/a/media") == roots[0]
        assert containing(roots, "/a/media2") is None


class TestSkipped:
    def test_each_is_said_once(self, library: Library, media: Path) -> None:
        (media / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (media / "lost.png").symlink_to(media / "nowhere.png")
        os.mkfifo(media / "pipe")
        first = library.index(media)
        assert len(first.skipped) == 3
        assert first.skipped_before == []
        second = library.index(media)
        assert second.skipped == []
        assert sorted(second.skipped_before) == sorted(first.skipped) == library.skipped()
        tiny.picture(media / "nowhere.png", 63)
        third = library.index(media)
        assert (third.added, len(third.skipped_before), third.removed) == (2, 2, 0)

    def test_a_file_that_was_usable_stays_when_it_cannot_be_opened_once(
        self, library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from serve.library import scan

        path = tiny.picture(media / "trip" / "0.png", 64)

        def refuse(*_: object) -> object:
            raise scan.TemporaryError(str(path), "could not be opened: Input/output error")

        monkeypatch.setattr(scan, "probe", refuse)
        assert len(library.index(media).skipped) == 1
        assert (len(library), library.skipped()) == (13, [])
        tiny.picture(media / "new.png", 65)
        assert len(library.index(media).skipped) == 2
        assert [len(library.index(media).skipped_before), len(library.skipped())] == [1, 1]
        monkeypatch.undo()
        assert library.index(media).added == 1  # it is tried again in each run
        assert library.skipped() == []

    def test_skipped_files_are_tried_again_on_request(self, tmp_path: Path, media: Path) -> None:
        tiny.sound(media / "rain.wav", 300)
        (media / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        with Library.open(tmp_path / "library", tiny.model(modalities=("image", "text"))) as library:
            library.index(media)
            (media / "bad.png").unlink()
            assert len(library.skipped()) == 2
        with Library.open(tmp_path / "library", tiny.model()) as library:
            report = library.retry_skipped()
            assert (report.added, report.skipped, library.skipped(), len(library)) == (1, [], [], 14)
            assert [root.path for root in library.roots()] == [str(media)]
            assert library.index(media).unchanged == 14
