"""Which entries of a folder are media: default rules, patterns, ignore files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bind.model.model import BindModel
from serve.library import scan
from serve.library.errors import LibraryError
from serve.library.library import Library
from serve.library.rules import Rules
from tests.serve import tiny


def tree(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder


def found(root: Path, rules: Rules | None = None, places: list[Path] | None = None) -> set[str]:
    given = None if places is None else [str(place) for place in places]
    entries = scan.walk(str(root), root / "no library", rules=rules, places=given)
    return {str(Path(one.path).relative_to(root)) for one in entries if isinstance(one, scan.Found)}


def counted(root: Path, rules: Rules | None = None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in scan.walk(str(root), root / "no library", rules=rules):
        if isinstance(one, scan.Excluded):
            counts[one.rule] = counts.get(one.rule, 0) + 1
    return counts


def test_what_devices_and_systems_put_beside_media_is_counted(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "sub/b.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "sub/@eaDir/t.jpg", "#recycle/c.jpg")
    tree(tmp_path, "$RECYCLE.BIN/d.jpg", "lost+found/e.jpg", ".thumbnails/f.jpg", "System Volume Information/g.jpg")
    tree(tmp_path, "Thumbs.db", "sub/thumbs.db", "desktop.ini", ".DS_Store", ".hidden.jpg", "app/.nomedia", "app/h.jpg")
    assert found(tmp_path) == {"a.jpg", "sub/b.jpg"}
    assert counted(tmp_path) == {
        "@eaDir": 2, "#recycle": 1, "$RECYCLE.BIN": 1, "lost+found": 1, ".thumbnails": 1, "Thumbs.db": 1,
        "thumbs.db": 1, "System Volume Information": 1, "desktop.ini": 1, ".DS_Store": 1, "hidden": 1, ".nomedia": 1,
    }  # fmt: skip


def test_a_folder_that_the_user_names_is_looked_into_whatever_it_is_called(tmp_path: Path) -> None:
    assert found(tree(tmp_path / "@eaDir", ".nomedia", "a.jpg")) == {"a.jpg"}


@pytest.mark.parametrize(
    ("exclude", "include", "left"),
    [
        (["*.tmp"], [], {"a.jpg", "keep.png", "raw/b.jpg", "x/raw/c.jpg"}),
        (["raw/"], [], {"a.jpg", "d.tmp", "keep.png"}),
        (["/raw"], [], {"a.jpg", "d.tmp", "keep.png", "x/raw/c.jpg"}),
        (["*", "!keep.png"], [], {"keep.png"}),
        ([], ["*.jpg"], {"a.jpg", "raw/b.jpg", "x/raw/c.jpg"}),
        (["raw"], ["*.jpg"], {"a.jpg"}),
        ([], ["/x/"], {"x/raw/c.jpg"}),
        (["!@eaDir"], ["*.jpg"], {"a.jpg", "raw/b.jpg", "x/raw/c.jpg", "@eaDir/t.jpg"}),
    ],
)
def test_patterns(tmp_path: Path, exclude: list[str], include: list[str], left: set[str]) -> None:
    tree(tmp_path, "a.jpg", "d.tmp", "keep.png", "raw/b.jpg", "x/raw/c.jpg", "@eaDir/t.jpg")
    assert found(tmp_path, Rules(tuple(exclude), tuple(include))) == left


def test_ignore_files_hold_for_their_folder_and_below_and_the_nearest_decides(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "a.tmp", "sub/a.tmp", "sub/deep/a.tmp", "sub/deep/b.jpg", "other/b.jpg", "sub/.odd/c.jpg")
    (tmp_path / ".crossbindignore").write_text("# leave out\n*.tmp\nother/\n\n")
    (tmp_path / "sub" / ".crossbindignore").write_bytes(b"\xef\xbb\xbf!a.tmp\r\n!.odd\r\n/deep/b.jpg\r\n\\\r\n")
    assert found(tmp_path) == {"a.jpg", "sub/a.tmp", "sub/deep/a.tmp", "sub/.odd/c.jpg"}
    assert counted(tmp_path) == {".crossbindignore": 3}
    # The same rules hold where a walk starts below.
    assert found(tmp_path, places=[tmp_path / "sub"]) == {"sub/a.tmp", "sub/deep/a.tmp", "sub/.odd/c.jpg"}
    assert found(tmp_path, places=[tmp_path / "sub" / "deep" / "b.jpg", tmp_path / "other" / "b.jpg"]) == set()
    assert found(tmp_path, places=[tmp_path / "sub" / "a.tmp", tmp_path / "gone.jpg"]) == {"sub/a.tmp"}


def test_a_walk_over_places_leaves_links_alone_and_says_folders_of_the_root(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/c.jpg", "other/d.jpg")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "other")
    entries = list(scan.walk(str(tmp_path), tmp_path / "no", places=[str(tmp_path / "a")]))
    assert [one.folder for one in entries if isinstance(one, scan.Found)] == ["a/b"]
    assert [one.path for one in entries if isinstance(one, scan.Unfollowed)] == [str(tmp_path / "a" / "link")]


@pytest.mark.attack
def test_a_pattern_of_somebody_else_costs_no_time(tmp_path: Path) -> None:
    tree(tmp_path, "a" * 200 + ".jpg")
    (tmp_path / ".crossbindignore").write_text("a*" * 30 + "b\n" + "**/" * 200 + "x\n" + "[" * 100_000)
    started = time.monotonic()
    assert len(found(tmp_path)) == 1
    assert time.monotonic() - started < 1


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(LibraryError, match="exclude: '!' is no pattern"):
        Rules(exclude=("!",))


class TestLibrary:
    @pytest.fixture
    def media(self, tmp_path: Path) -> Path:
        for number in range(24):
            tiny.picture(tmp_path / "media" / ("raw" if number < 20 else "jpg") / f"{number}.png", number)
        return tmp_path / "media"

    def test_patterns_are_remembered_and_taken_back(self, tmp_path: Path, model: BindModel, media: Path) -> None:
        library = Library.open(tmp_path / "library", model)
        report = library.index(media, exclude=["raw"])
        assert (report.added, report.excluded) == (4, {"--exclude": 1})
        assert library.index(media).unchanged == 4
        assert library.index(media / "raw" / "0.png").added == 0
        assert library.index(media, exclude=[]).added == 20

    def test_what_a_rule_excludes_later_leaves_the_library_and_is_not_gone(
        self, tmp_path: Path, model: BindModel, media: Path
    ) -> None:
        library = Library.open(tmp_path / "library", model)
        library.index(media)
        report = library.index(media, exclude=["raw"])
        assert (report.removed, len(library)) == (20, 4)
        (media / ".crossbindignore").write_text("*")
        assert library.index(media, exclude=[]).removed == 4
