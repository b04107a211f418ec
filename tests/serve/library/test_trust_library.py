"""Libraries and folders that somebody else made, or that were moved: what they can do, and what they cannot."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import serve
from bind.model.model import BindModel
from bind.owned import NotOwnedError, OwnedFolder
from bind.query import Term
from preprocess.source import Limits
from serve.engine import thumbnails
from serve.library import connections, scan, uploads
from serve.library.check import check
from serve.library.connections import connect
from serve.library.errors import DamagedError, LibraryError, UnknownItemError
from serve.library.library import Library
from serve.library.schema import CHECKSUMS, COMMITTED, FILE, LOCK, sign
from serve.library.verified_files import VerifiedFiles
from tests.serve import tiny

pytestmark = [pytest.mark.attack, pytest.mark.timeout(60)]
SECRET = b"a secret of somebody else"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for number in range(3):
        tiny.picture(tmp_path / "media" / f"{number}.png", number)
    return tmp_path / "media"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder with a file that nothing may touch."""
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "secret.txt").write_bytes(SECRET)
    (folder / ".incoming-x").mkdir()
    (folder / ".incoming-x" / "photo.jpg").write_bytes(SECRET)
    (folder / "1.jpg").write_bytes(SECRET)
    return folder


def state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def upload(library: Library, seed: int, name: str = "mine.png", **metadata: str) -> int:
    content = tiny.picture(library.folder.parent / "scratch" / f"{seed}.png", seed).read_bytes()
    (item,) = library.add(io.BytesIO(content), name, metadata)
    return item.item_id


def use(folder: Path, model: BindModel, media: Path) -> None:
    """All that a person does with a library. What it refuses is fine; what it does elsewhere is not."""
    tiny.picture(media / "new.png", 50)
    try:
        with Library.open(folder, model) as library:
            library.tidy()
            for action in (
                lambda: library.index(media),
                lambda: upload(library, 60),
                lambda: thumbnails.make(library, library.search("x")),
                lambda: library.remove(library.search("x")[0].item_id),
            ):
                with contextlib.suppress(LibraryError, OSError):
                    action()
    except LibraryError:
        pass


def _replace(place: Path, target: Path, kind: str) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    if kind == "link":
        place.symlink_to(target)
    elif kind == "hard link":
        os.link(target, place)
    else:
        os.mkfifo(place)


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
@pytest.mark.parametrize(
    "name", [FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", LOCK, "thumbnails/1.jpg", "files/.incoming-x"]
)
def test_files_of_a_library_that_lead_elsewhere(
    library: Library, model: BindModel, media: Path, precious: Path, name: str, kind: str
) -> None:
    library.close()
    _replace(library.folder / name, precious / "secret.txt", kind)
    before = state(precious)
    use(library.folder, model, media)
    assert state(precious) == before


@pytest.mark.parametrize("name", ["files", "index", "thumbnails", "index/1", "files/.incoming-x", "thumbnails/1.jpg"])
def test_folders_of_a_library_that_lead_elsewhere(
    library: Library, model: BindModel, media: Path, precious: Path, name: str
) -> None:
    library.close()
    _replace(library.folder / name, precious, "link")
    before = state(precious)
    use(library.folder, model, media)
    assert state(precious) == before


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_thumbnail_that_leads_elsewhere_is_made_anew(library: Library, precious: Path, kind: str) -> None:
    hit = library.search("x", want=["image"])[0]
    place = library.folder / "thumbnails" / f"{hit.item_id}.jpg"
    _replace(place, precious / "secret.txt", kind)
    made = thumbnails.make(library, [hit])
    assert thumbnails.read(library, hit.item_id).startswith(b"\xff\xd8")
    assert made == {hit.item_id: place}
    assert (precious / "secret.txt").read_bytes() == SECRET


@pytest.mark.parametrize("guarded", [True, False])
def test_a_journal_cannot_make_sqlite_delete_a_file(
    library: Library, model: BindModel, precious: Path, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that names another one, of several databases, makes SQLite delete that one: here somebody's file."""
    library.close()
    victim = precious / "secret.txt"
    name, magic = os.fsencode(victim), bytes.fromhex("d9d505f920a163d7")
    numbers = (0, 0, 2, 512, 4096)  # no records, a nonce, pages, bytes a sector and a page
    header = (magic + b"".join(number.to_bytes(4, "big") for number in numbers)).ljust(512, b"\0")
    tail = (2**30 // 4096 + 1, len(name), sum(name))
    names = tail[0].to_bytes(4, "big") + name + tail[1].to_bytes(4, "big") + tail[2].to_bytes(4, "big") + magic
    with sqlite3.connect(library.folder / FILE) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    (library.folder / f"{FILE}-journal").write_bytes(header + names)
    if guarded:
        with pytest.raises(LibraryError, match="names another journal"):
            Library.open(library.folder, model)
    else:
        monkeypatch.setattr(connections, "refuse_foreign_files", lambda _: None)
        with contextlib.suppress(LibraryError):
            Library.open(library.folder, model)
    assert victim.is_file() is guarded


def test_paths_in_a_catalogue_hand_nothing_out(library: Library, precious: Path) -> None:
    """Somebody's catalogue says that an item is another file, with its size and time."""
    hit = library.search("x", want=["image"])[0]
    secret = precious / "secret.txt"
    for path in (os.fsencode(secret), b"files/../precious/secret.txt", b"../precious/secret.txt", b"files/../..//x"):
        with connect(library.folder / FILE) as connection:
            connection.execute(
                "UPDATE files SET path = ?, size_bytes = ?, mtime_ns = ? "
                "WHERE content = (SELECT content FROM segments WHERE id = ?)",
                (path, len(SECRET), secret.stat().st_mtime_ns, hit.item_id),
            )
            sign(connection, "files")
        with pytest.raises(UnknownItemError):
            library.original(hit.item_id)
        with pytest.raises(UnknownItemError):
            library.open_original(hit.item_id)
        assert thumbnails.make(library, [library.item(hit.item_id)]) == {}
        library.remove(hit.item_id) if path.startswith(b"files/../..") else None
    assert secret.read_bytes() == SECRET


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("segments", "start_s", "soon"),
        ("segments", "end_s", 9e999),
        ("segments", "modality", b"image"),
        ("contents", "parts", b"image"),
        ("contents", "notes", "{"),
        ("contents", "notes", "[1]"),
        ("contents", "metadata", "[]"),
        ("segments", "at", b"page 1"),
        ("files", "metadata", "[1]"),
        ("files", "metadata", '{"a": NaN}'),
        ("files", "metadata", "{"),
        ("files", "metadata", '{"a":' * 100_000),
        ("files", "caption", b"a cat"),
    ],
)
def test_values_of_another_type_are_a_named_damage(library: Library, table: str, column: str, value: object) -> None:
    """Somebody's catalogue, whose rows match their checksums."""
    with connect(library.folder / FILE) as connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        sign(connection, table)
    with (
        pytest.raises(DamagedError, match=r"another type|the catalogue none"),
        Library.open(library.folder, library.model) as opened,
    ):
        opened.search("x", k=3)
    report = check(library.folder)
    assert any("damaged" in finding.what for finding in report.findings)


@pytest.mark.parametrize("kind", ["link", "pipe", "another", "folder"])
def test_a_file_that_was_swapped_after_indexing_is_not_handed_out(
    library: Library, media: Path, precious: Path, kind: str
) -> None:
    path = media / "1.png"
    (hit,) = library.search(str(path), k=1)
    with library.open_original(hit.item_id) as file:
        before = file.read()
    status = path.stat()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        target = path if kind == "another" else precious / "same size.png"
        target.write_bytes(bytes(len(before)))  # the same size and time
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        if kind == "link":
            path.symlink_to(target)
    with pytest.raises(UnknownItemError, match=r"item \d+: its file"):
        library.open_original(hit.item_id)


def test_that_test_can_fail(library: Library, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifiedFiles, "check", lambda *_: None)
    (hit,) = library.search(str(media / "1.png"), k=1)
    (media / "1.png").write_bytes(SECRET)
    assert library.open_original(hit.item_id).read() == SECRET


def test_what_is_handed_out_is_what_was_checked(library: Library, media: Path) -> None:
    (hit,) = library.search(str(media / "1.png"), k=1)
    content = (media / "1.png").read_bytes()
    file = library.open_original(hit.item_id)
    (media / "other").write_bytes(SECRET)
    os.replace(media / "other", media / "1.png")
    with file:
        assert file.read() == content


@pytest.mark.timeout(20)
def test_a_pipe_as_sidecar_or_medium_does_not_stop_indexing(library: Library, media: Path) -> None:
    os.mkfifo(media / "0.png.json")
    os.mkfifo(media / "pipe.png")
    report = library.index(media)
    assert {os.path.basename(path) for path, _ in report.skipped} == {"0.png.json", "pipe.png"}
    assert all("not a regular file" in reason for _, reason in report.skipped)


def test_links_out_of_a_folder_are_left_out_and_counted(library: Library, media: Path, precious: Path) -> None:
    tiny.picture(precious / "far.png", 70)
    (precious / "keys.json").write_text('{"caption": "a key"}')
    (media / "far.png").symlink_to(precious / "far.png")
    (media / "folder").symlink_to(precious)
    (media / "inside.png").symlink_to("0.png")
    (media / "1.png.json").symlink_to(precious / "keys.json")
    report = library.index(media)
    assert (report.added, report.left_out, report.skipped) == (1, 3, [])  # a sidecar among them
    assert not [hit for hit in library.search("x", k=50) if "far" in hit.path or "caption" in hit.metadata]
    report = library.index(media, follow_links=True)
    assert report.left_out == 0
    assert report.added >= 1
    assert library.search("key", k=1)[0].metadata["caption"] == "a key"


def test_a_file_that_becomes_a_link_before_it_is_opened(
    library: Library, media: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.picture(media / "late.png", 71)
    tiny.picture(precious / "far.png", 72)
    found = [entry for entry in scan.walk(str(media), library.folder, False) if "late" in entry.path]
    (media / "late.png").unlink()
    (media / "late.png").symlink_to(precious / "far.png")
    assert isinstance(found[0], scan.Found)
    with pytest.raises(scan.TemporaryError, match="leads out"):
        scan.probe(found[0], Limits())


def test_a_file_that_was_another_while_it_was_read_is_not_stored(
    library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped after hashing and back, with its size and time: only the time of change tells."""
    path = tiny.picture(media / "late.png", 73)
    probe = scan.probe

    def probe_and_swap(found: scan.Found, limits: Limits) -> scan.Probed:
        probed = probe(found, limits)
        os.rename(path, media / "away")
        os.rename(media / "away", path)
        return probed

    monkeypatch.setattr(scan, "probe", probe_and_swap)
    ((skipped, reason),) = library.index(media).skipped
    assert skipped == str(path)
    assert "changed while it was read" in reason


class TestMoved:
    """A library that lies elsewhere now has all its uploads, and keeps them."""

    @pytest.mark.parametrize("how", ["moved", "copied", "linked"])
    def test_uploads_are_found_wherever_the_library_lies(
        self, library: Library, model: BindModel, tmp_path: Path, how: str
    ) -> None:
        number = upload(library, 80, caption="a boat")
        with library.open_original(number) as file:
            content = file.read()
        library.close()
        place = tmp_path / "new" / "place"
        place.parent.mkdir()
        if how == "moved":
            shutil.move(library.folder, place)
        elif how == "copied":
            shutil.copytree(library.folder, place)
        else:
            place.symlink_to(library.folder)
        with Library.open(place, model) as moved:
            moved.tidy()
            item = moved.item(number)
            assert Path(item.path).is_relative_to(place)
            assert moved.original(number).read_bytes() == content
            assert moved.search("boat", k=1)[0].item_id == number
            moved.index(tmp_path / "media")
            assert upload(moved, 80, caption="a boat") == number, "it is known"
            moved.remove(number)
            assert not os.listdir(place / "files")

    def test_nothing_is_swept_where_nothing_matches(self, library: Library, model: BindModel) -> None:
        number = upload(library, 81)
        content = library.original(number)
        with connect(library.folder / FILE) as connection:
            connection.execute("DELETE FROM uploads")
            connection.execute("DELETE FROM files")
        library.tidy()
        assert content.is_file()

    def test_an_interrupted_upload_is_finished(self, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
        """The catalogue has it, and its folder has not yet its name."""

        def crash(*_: object) -> Path:
            raise OSError(5, "the power went")

        with monkeypatch.context() as broken:
            broken.setattr(uploads.Uploads, "finish", crash)
            with pytest.raises(LibraryError):
                upload(library, 82, caption="a kite")
        (hit,) = library.search("kite", k=1)
        with library.open_original(hit.item_id) as file:
            assert file.read() == (library.folder.parent / "scratch" / "82.png").read_bytes()
        library.tidy()
        assert library.original(hit.item_id).is_file()
        assert not [name for name in os.listdir(library.folder / "files") if name.startswith(".")]

    def test_a_library_of_format_1_is_brought_up_to_date(
        self, library: Library, model: BindModel, media: Path, tmp_path: Path
    ) -> None:
        number = upload(library, 83, caption="a boat")
        old = library.item(number)
        library.close()
        with sqlite3.connect(library.folder / FILE) as connection:  # as format 1 had it
            tiny.as_format_3(connection)
            for table in ("uploads", "texts", "written"):
                connection.execute(f"DROP TABLE {table}")
            connection.execute("UPDATE files SET path = ? WHERE path LIKE 'files/%'", (os.fsencode(old.path),))
            connection.execute("DELETE FROM facts WHERE key IN ('library', 'revisions')")
            for table in CHECKSUMS.keys() - {"uploads", "texts", "marks", "albums", "members"}:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
            for table, column in (("contents", "metadata"), ("segments", "at"), ("files", "date_source")):
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            connection.execute("UPDATE facts SET value = 1 WHERE key = 'format'")
        (library.folder / COMMITTED).unlink()
        shutil.move(library.folder, tmp_path / "elsewhere")
        with Library.open(tmp_path / "elsewhere", model) as moved:
            moved.tidy()
            (hit,) = moved.search("boat", k=1)
            assert moved.original(hit.item_id).is_relative_to(tmp_path / "elsewhere")
            assert len(moved) == 4
            assert moved.index(media).unchanged == 3
            moved.remove(hit.item_id)
            assert len(moved) == 3


class TestOneContentTwice:
    """A folder's file and uploads with the same bytes: each is a reference of its own."""

    @staticmethod
    def paths(library: Library) -> set[str]:
        return {path for hit in library.search("x", k=50, keywords=False) for path in (hit.path, *hit.also)}

    @pytest.mark.parametrize("first", ["folder", "upload"])
    @pytest.mark.parametrize("delete", ["upload", "folder", "both"])
    def test_deleting_one_leaves_the_other(self, tmp_path: Path, model: BindModel, first: str, delete: str) -> None:
        content = tiny.picture(tmp_path / "media" / "photo.png", 90).read_bytes()
        library = Library.open(tmp_path / "library", model)
        if first == "folder":
            library.index(tmp_path / "media")
        (added,) = library.add(io.BytesIO(content), "mine.png", {"caption": "a boat"})
        if first == "upload":
            library.index(tmp_path / "media")
        assert library.count() == {"image": 1}, "what is known is not stored twice"
        assert added.metadata["caption"] == "a boat"
        assert Path(added.path).is_relative_to(library.folder)
        assert library.item(added.item_id).metadata["caption"] == "a boat"
        photo = str(tmp_path / "media" / "photo.png")
        (by_words,) = library.search("boat", k=1)
        assert (by_words.item_id, by_words.path, by_words.metadata) == (added.item_id, added.path, added.metadata)
        assert by_words.also == (photo,)
        (by_picture,) = library.search(photo, k=5)
        assert (by_picture.path, by_picture.also, by_picture.metadata) == (
            photo,
            (added.path,),
            {"width": 24, "height": 20},
        )
        assert by_picture.item_id != added.item_id
        np.testing.assert_array_equal(
            library.vectors([added.item_id]).vectors, library.vectors([by_picture.item_id]).vectors
        )
        assert library.similar(added.item_id) == []
        if delete in ("upload", "both"):
            library.remove(added.item_id)
            assert self.paths(library) == {photo}
            assert library.search("boat", k=1, want=["image"])[0].metadata == {"width": 24, "height": 20}
            for _ in range(2):  # nor does a second try
                with pytest.raises(UnknownItemError):
                    library.remove(added.item_id)
            assert library.item(by_picture.item_id).path == photo
            assert not Path(added.path).exists()
        if delete in ("folder", "both"):
            library.remove(by_picture.item_id)
            assert self.paths(library) == ({added.path} if delete == "folder" else set())
            if delete == "folder":
                with pytest.raises(UnknownItemError):
                    library.remove(by_picture.item_id)
                assert library.original(added.item_id).read_bytes() == content
            assert Path(photo).is_file()
        if delete == "both":
            assert library.count() == {}

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_two_uploads_with_captions_of_their_own(
        self, tmp_path: Path, model: BindModel, order: tuple[int, int]
    ) -> None:
        content = tiny.picture(tmp_path / "photo.png", 91).read_bytes()
        library = Library.open(tmp_path / "library", model)
        captions = ("a boat", "a zebra")
        items = [library.add(io.BytesIO(content), "a.png", {"caption": caption})[0] for caption in captions]
        assert library.count() == {"image": 1} and items[0].item_id != items[1].item_id
        for item, caption in zip(items, captions, strict=True):
            (hit,) = library.search(caption, k=1)
            assert (hit.item_id, hit.metadata["caption"]) == (item.item_id, caption)
        one, other = (items[place] for place in order)
        library.remove(one.item_id)
        assert library.item(other.item_id).metadata == other.metadata
        assert library.original(other.item_id).read_bytes() == content
        assert self.paths(library) == {other.path}
        library.remove(other.item_id)
        assert (library.count(), len(library)) == ({}, 0)
        again = library.add(io.BytesIO(content), "a.png", {"caption": "a boat"})[0]
        assert again.item_id not in (items[0].item_id, items[1].item_id), "ids are never given twice"

    def test_a_folder_whose_file_goes_leaves_the_upload(self, tmp_path: Path, model: BindModel) -> None:
        photo = tiny.picture(tmp_path / "media" / "photo.png", 92)
        library = Library.open(tmp_path / "library", model)
        library.index(tmp_path / "media")
        number = library.add(io.BytesIO(photo.read_bytes()), "mine.png")[0].item_id
        photo.unlink()
        assert library.index(tmp_path / "media", allow_removal=True).removed == 1
        assert library.original(number).is_file()

    def test_pictures_go_with_their_item(self, library: Library, media: Path) -> None:
        number = upload(library, 93)
        hits = library.search("x", k=50, want=["image"])
        made = thumbnails.make(library, hits)
        assert len(made) == 4
        library.remove(number)
        assert not made[number].exists()
        (media / "0.png").unlink()
        (library.folder / "thumbnails" / f".{'0' * 32}.part").write_bytes(b"half")
        library.index(media)
        assert len(list((library.folder / "thumbnails").iterdir())) == 2

    def test_a_picture_is_whole_or_not_there(self, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
        hit = library.search("x", want=["image"])[0]

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("serve.engine.thumbnails.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            thumbnails.make(library, [hit])
        assert os.listdir(library.folder / "thumbnails") == []


def test_terms_of_every_kind_search_a_library(library: Library, media: Path) -> None:
    path = media / "1.png"
    (expected,) = library.search(str(path), k=1)
    vector = library.vectors([expected.item_id]).vectors[0]
    for content in (path, path.read_bytes(), expected.item_id, vector):
        assert library.search([serve.Term(content)], k=1)[0].item_id == expected.item_id
    mixed = [serve.Term(path), Term("text", "indoors", 0.01)]
    assert library.search(mixed, k=1)[0].item_id == expected.item_id
    words = library.search([serve.Term("beach")], k=3)
    assert [hit.item_id for hit in words] == [hit.item_id for hit in library.search("text:beach", k=3)]


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: folder.open("x"),
        lambda folder: folder.update("x"),
        lambda folder: folder.create("x"),
        lambda folder: folder.check("x"),
        lambda folder: folder.folder("x").names(),
        lambda folder: folder.folder("x").make(),
        lambda folder: folder.folder("x").create("y"),
    ],
)
@pytest.mark.parametrize("kind", ["link", "pipe", "foreign", "link to a folder"])
def test_nothing_but_its_own_is_touched(
    tmp_path: Path, precious: Path, act: Callable[[OwnedFolder], object], kind: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / "x")
    elif kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only the superuser can give a file away")
        (folder / "x").touch()
        os.chown(folder / "x", 12345, 12345)
    else:
        (folder / "x").symlink_to(precious / "secret.txt" if kind == "link" else precious)
    with pytest.raises((NotOwnedError, FileExistsError)):
        act(OwnedFolder(folder))
    assert (precious / "secret.txt").read_bytes() == SECRET
    assert sorted(os.listdir(precious)) == [".incoming-x", "1.jpg", "secret.txt"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_names_do_not_lead_out(tmp_path: Path, name: str) -> None:
    for act in (OwnedFolder(tmp_path).open, OwnedFolder(tmp_path).folder, OwnedFolder(tmp_path).create):
        with pytest.raises(ValueError, match="name without folders"):
            act(name)
