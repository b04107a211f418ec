from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import bind
from bind.index.index import Index
from bind.model.model import BindModel
from bind.query import QueryError, Term
from bind.space import Embeddings, SpaceError, unit
from preprocess.decoding.pool import DecodePool
from preprocess.source import MediaError
from serve.library import calibration, scan
from serve.library.catalogue import Catalogue
from serve.library.errors import LibraryError
from serve.library.library import Library
from serve.library.model_check import OtherModelError
from serve.library.query import modalities_of
from serve.library.records import ContentKey, NewFile, NewSegment
from serve.library.where import Where, WhereError
from tests.serve import tiny


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    for number in range(8):
        tiny.picture(folder / "trip" / f"beach_{number}.png", number)
    for number in range(8, 12):
        tiny.picture(folder / "home" / f"cat_{number}.png", number)
    (folder / "home" / "note.txt").write_text("a dog barks")
    return folder


def names(hits: object) -> list[str]:
    return [Path(hit.path).name for hit in hits]  # type: ignore[attr-defined]


def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(scan, "probe", refuse)
    monkeypatch.setattr(DecodePool, "submit", refuse)


def test_files_of_one_recording_are_one_item(tmp_path: Path) -> None:
    media = tmp_path / "walk"
    media.mkdir()
    for name in ("Accelerometer", "Gyroscope"):
        rows = "\n".join(f"{i / 100},{i / 100},0,{i % 7},9" for i in range(600))
        (media / f"{name}.csv").write_text(f"time,seconds_elapsed,x,y,z\n{rows}\n")
    library = Library.open(tmp_path / "library", tiny.seven())
    report = library.index(media)
    assert report.added == 1
    assert [(Path(path).name, reason) for path, reason in report.skipped] == [
        ("Gyroscope.csv", "is a part of the recording Accelerometer.csv, with which it is read")
    ]
    assert (again := library.index(media)).unchanged == 1 and not again.embedded
    rows = "\n".join(f"{i / 100},{i / 100},{i % 5},0,0" for i in range(600))
    (media / "Gyroscope.csv").write_text(f"time,seconds_elapsed,x,y,z\n{rows}\n")
    changed = library.index(media)
    assert (changed.updated, changed.embedded) == (1, 1)
    (media / "Gyroscope.csv").unlink()
    assert library.index(media).embedded == 1
    (media / "Accelerometer.csv").rename(media / "Accelerometer.txt.bak")
    (media / "Gyroscope.csv").write_text(f"time,seconds_elapsed,x,y,z\n{rows}\n")
    report = library.index(media, allow_removal=True)
    assert [reason for path, reason in report.skipped if path.endswith("Gyroscope.csv")] == [
        "has no acceleration among its columns, and no file beside it has"
    ]


def test_a_library_keeps_its_way_to_search(tmp_path: Path) -> None:
    for number in range(30):
        tiny.picture(tmp_path / "media" / f"{number}.png", number)
    with Library.open(tmp_path / "library", tiny.model(), factory="HNSW16") as library:
        library.index(tmp_path / "media")
    with Library.open(tmp_path / "library", tiny.model()) as library:
        assert library._live_index.index.factory == "HNSW16"
        assert library.index(tmp_path / "media").unchanged == 30
    with Library.open(tmp_path / "library", tiny.model(), factory="Flat") as library:
        assert library._live_index.index.factory == "Flat"
        assert len(library.search(str(tmp_path / "media" / "3.png"), k=3)) == 3


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ("a red car", {"text"}),
        ("red + text:'blue' - green", {"text"}),
        ("thermal:x.png + snow", {"thermal", "text"}),
        (__file__, None),
    ],
)
def test_a_query_tells_what_a_model_must_have(query: str, needed: set[str] | None) -> None:
    assert modalities_of(query) == needed


class TestIndexing:
    def test_a_second_run_opens_nothing(self, library: Library, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (media / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        first = library.index(media)
        nothing_is_opened(monkeypatch)
        second = library.index(media)
        assert (second.unchanged, second.added, second.embedded) == (13, 0, 0)
        assert second.skipped_before == first.skipped != []  # remembered, and counted
        assert second.skipped == []  # said once
        assert names(library.search("a dog barks", want=["text"])) == ["note.txt"]

    def test_that_test_can_fail(self, library: Library, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny.picture(media / "new.png", 99)
        nothing_is_opened(monkeypatch)
        with pytest.raises(AssertionError, match="was opened"):
            library.index(media)

    def test_add_rename_change_remove(self, library: Library, media: Path) -> None:
        tiny.picture(media / "new.png", 50)
        (media / "trip" / "beach_0.png").rename(media / "home" / "renamed.png")
        tiny.picture(media / "trip" / "beach_1.png", 51)
        (media / "trip" / "beach_2.png").unlink()
        report = library.index(media)
        assert (report.added, report.renamed, report.updated, report.removed, report.unchanged) == (1, 1, 1, 1, 10)
        assert report.embedded == 2
        assert len(library) == 13
        found = {Path(hit.path).name: hit for hit in library.search(str(media / "home" / "renamed.png"), k=20)}
        assert found["renamed.png"].cosine == pytest.approx(1, abs=1e-5)
        assert not {"beach_0.png", "beach_2.png"} & set(found)
        nearest = library.search(str(media / "trip" / "beach_1.png"), k=1)[0]
        assert (Path(nearest.path).name, round(nearest.cosine, 4)) == ("beach_1.png", 1)

    def test_a_renamed_folder_and_swapped_names_need_no_embedding(self, library: Library, media: Path) -> None:
        (media / "trip").rename(media / "journey")
        one, other = media / "home" / "cat_8.png", media / "home" / "cat_9.png"
        one.rename(media / "x")
        other.rename(one)
        (media / "x").rename(other)
        report = library.index(media)
        assert (report.renamed, report.updated, report.embedded, report.removed) == (8, 2, 0, 0)
        assert len(library.search("beach", k=20, where="folder = 'journey'")) == 8

    def test_a_touched_file_is_unchanged_and_a_sidecar_updates(self, library: Library, media: Path) -> None:
        os.utime(media / "trip" / "beach_3.png", ns=(1, 1))
        (media / "trip" / "beach_4.png.json").write_text(json.dumps({"caption": "palm trees", "year": 2021}))
        report = library.index(media)
        assert (report.unchanged, report.updated, report.embedded) == (12, 1, 0)
        hit = library.search("palm", k=1)[0]
        assert (Path(hit.path).name, hit.metadata, hit.keyword) == (
            "beach_4.png",
            {"caption": "palm trees", "year": 2021, "width": 24, "height": 20},
            True,
        )
        assert names(library.search("x", where="year = 2021 and date < '1980'")) == []
        assert names(library.search("x", where="date < '1980'")) == ["beach_3.png"]

    def test_hints_of_a_sidecar_make_another_content(self, library: Library, media: Path) -> None:
        shutil.copy(media / "trip" / "beach_0.png", media / "again.png")
        (media / "again.png.json").write_text('{"unit": "mm"}')
        assert library.index(media).embedded == 1

    def test_equal_files_are_embedded_once_and_reported(self, library: Library, media: Path) -> None:
        shutil.copy(media / "trip" / "beach_0.png", media / "copy.png")
        tiny.picture(media / "two.png", 77)
        shutil.copy(media / "two.png", media / "too.png")
        report = library.index(media)
        assert (report.added, report.embedded) == (3, 1)
        both = {tuple(sorted(map(os.path.basename, group))) for group in report.duplicates}
        assert both == {("beach_0.png", "copy.png"), ("too.png", "two.png")}
        hits = library.search(str(media / "copy.png"), k=3)
        assert len({hit.item_id for hit in hits}) == 3
        assert {hits[0].path, *hits[0].also} == {str(media / "copy.png"), str(media / "trip" / "beach_0.png")}
        assert names(library.search(str(media / "copy.png"), where="name = 'beach_0.png'")) == ["beach_0.png"]

    def test_a_file_that_changes_while_it_is_read_is_skipped_once(
        self, library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tiny.picture(media / "growing.png", 60)
        probe = scan.probe

        def probe_then_change(*arguments: object) -> scan.Probed:
            probed = probe(*arguments)  # type: ignore[arg-type]
            os.utime(path, ns=(5, 5))
            return probed

        monkeypatch.setattr(scan, "probe", probe_then_change)
        [(skipped, reason)] = library.index(media).skipped
        assert skipped == str(path)
        assert "changed while it was read" in reason
        monkeypatch.undo()
        assert library.index(media).added == 1

    def test_what_fails_is_tried_again_when_it_changed_or_on_request(self, library: Library, media: Path) -> None:
        path = media / "trip" / "beach_0.png"
        good = path.read_bytes()
        path.write_bytes(good[:40])
        assert len(library.index(media).skipped) == 1
        assert "beach_0.png" not in names(library.search("x", k=50, keywords=False))
        assert len(library.index(media, retry=True).skipped) == 1
        path.write_bytes(good)
        report = library.index(media)
        assert (report.added, report.skipped) == (1, [])

    def test_another_modality_makes_a_skipped_file_usable(self, tmp_path: Path, media: Path) -> None:
        without = Library.open(tmp_path / "library", tiny.model(modalities=("image", "text")))
        tiny.sound(media / "rain.wav", 300)
        [(_, reason)] = without.index(media).skipped
        assert "audio" in reason
        with_sound = Library.open(tmp_path / "library", tiny.model())
        report = with_sound.index(media)
        assert (report.added, report.embedded, report.skipped) == (1, 1, [])

    def test_what_lies_beside_media(self, library: Library, media: Path, tmp_path: Path) -> None:
        tiny.picture(media / ".hidden" / "a.png", 70)
        tiny.picture(media / ".b.png", 71)
        (media / "lonely.json").write_text("{}")
        (media / "empty.png").touch()
        os.mkfifo(media / "pipe")
        (media / "lost.png").symlink_to(media / "nowhere.png")
        (media / "odd.png.json").write_text("[1]")
        tiny.picture(media / "odd.png", 72)
        (media / "nan.png.json").write_text('{"a": 1e999}')
        tiny.picture(media / "nan.png", 73)
        reasons = {os.path.basename(path): reason for path, reason in library.index(media).skipped}
        assert set(reasons) == {"lonely.json", "empty.png", "pipe", "lost.png"}
        assert "empty" in reasons["empty.png"]
        assert "missing file" in reasons["lost.png"]
        found = {Path(hit.path).name: hit.notes for hit in library.search("x", k=50)}
        assert "must hold one JSON object; it was ignored" in found["odd.png"][0]
        assert "is not JSON" in found["nan.png"][0]

    def test_links(self, library: Library, media: Path, tmp_path: Path) -> None:
        tiny.picture(tmp_path / "elsewhere" / "far.png", 80)
        (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
        (media / "a_link").symlink_to(tmp_path / "elsewhere")
        (media / "b_link").symlink_to(tmp_path / "elsewhere")
        (media / "loop").symlink_to(media)
        (media / "up").symlink_to(tmp_path)
        (media / "trip" / "up").symlink_to("..")
        (media / "link.png").symlink_to(media / "trip" / "beach_0.png")
        report = library.index(media, follow_links=True)
        assert report.added == 2  # far.png, by one of its links, and link.png
        assert report.embedded == 1
        assert library.index(media, follow_links=True).unchanged == 15

    def test_names_that_are_not_utf8(self, library: Library, media: Path) -> None:
        name = b"caf\xe9_\xff.png"
        shutil.copy(tiny.picture(media / "plain.png", 81), os.path.join(os.fsencode(media), name))
        (media / "plain.png").unlink()
        assert library.index(media).added == 1
        hit = library.search("caf", k=1)[0]
        assert os.path.basename(os.fsencode(hit.path)) == name
        assert Path(hit.path).is_file()
        json.dumps(hit.path)
        assert library.index(media).unchanged == 14
        assert names(library.search(hit.path, k=1)) == [os.fsdecode(name)]
        assert library.search("x", where="name like 'caf%.png'")[0].path == hit.path

    def test_the_library_may_lie_inside_of_the_media(self, tmp_path: Path, model: BindModel, media: Path) -> None:
        library = Library.open(media / "library", model)
        assert library.index(media).added == library.index(media).unchanged == 13
        with pytest.raises(LibraryError, match="belongs to the library"):
            library.index(media / "library")

    def test_a_single_file_and_a_missing_folder(self, library: Library, media: Path) -> None:
        path = tiny.picture(media / "single.png", 90)
        assert library.index(path).added == 1
        assert len(library) == 14
        path.unlink()
        with pytest.raises(LibraryError, match="no such folder"):
            library.index(path)
        with pytest.raises(LibraryError, match="no such folder"):
            library.index(media.with_name("unmounted"))
        assert len(library) == 14

    def test_a_folder_that_cannot_be_listed_loses_nothing(
        self, library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = os.scandir

        def refuse(path: str) -> object:
            if path.endswith("trip"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return listed(path)

        monkeypatch.setattr(os, "scandir", refuse)
        report = library.index(media)
        assert (report.removed, len(library)) == (0, 13)
        assert report.skipped == [(str(media / "trip"), "the folder could not be listed: Permission denied")]

    def test_progress_reaches_the_total(self, library: Library, media: Path) -> None:
        tiny.picture(media / "new.png", 91)
        calls: list[tuple[int, int]] = []
        library.index(media, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(number, 14) for number in range(1, 15)]

    @pytest.mark.slow
    def test_5000_unchanged_files_take_less_than_5_s(
        self, tmp_path: Path, model: BindModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny.pictures(tmp_path / "many", 5000)
        library = Library.open(tmp_path / "library", model)
        assert library.index(tmp_path / "many").added == 5000
        nothing_is_opened(monkeypatch)
        started = time.monotonic()
        assert library.index(tmp_path / "many").unchanged == 5000
        assert time.monotonic() - started < 5


class TestTimedMedia:
    @pytest.fixture
    def films(self, tmp_path: Path, model: BindModel) -> Library:
        folder = tmp_path / "films"
        folder.mkdir()
        tiny.clip(folder / "loud.mp4", 6.0)
        tiny.clip(folder / "silent.mp4", 6.0, hz=None)
        tiny.sound(folder / "tone.wav", 700, 6.0)
        library = Library.open(tmp_path / "library", model)
        report = library.index(folder)
        assert (report.added, report.embedded, report.skipped) == (3, 3, [])
        return library

    def test_segments_say_where(self, films: Library) -> None:
        assert films.count() == {"audio": 6, "video": 6}
        hits = films.search("x", k=50, want=["video"], where="name = 'loud.mp4'", every_segment=True)
        assert sorted((hit.start_s, hit.end_s) for hit in hits) == [(0, 2), (2, 4), (4, 6)]
        assert len(films.search("x", k=50, want=["video"])) == 2  # the best of each

    def test_a_sound_track_is_audio(self, films: Library) -> None:
        hits = films.search("x", k=50, want=["audio"], keywords=False)
        assert sorted(names(hits)) == ["loud.mp4", "tone.wav"]
        assert {hit.modality for hit in hits} == {"audio"}

    def test_exact_duplicates_join_near_ones(self, films: Library, tmp_path: Path) -> None:
        folder = tmp_path / "films"
        for name in ("loud.mp4", "silent.mp4", "tone.wav"):
            shutil.copy(folder / name, folder / f"copy_{name}")
        assert films.index(folder).embedded == 0
        groups = [sorted(map(os.path.basename, group.paths)) for group in films.duplicates(0.999)]
        assert groups == [["copy_loud.mp4", "copy_silent.mp4", "loud.mp4", "silent.mp4"], ["copy_tone.wav", "tone.wav"]]
        assert films.duplicates(0.999)[1].cosine == 1

    def test_near_duplicates(self, films: Library, tmp_path: Path) -> None:
        tiny.clip(tmp_path / "films" / "again.mp4", 6.0, hz=200.0)  # the same pictures
        films.index(tmp_path / "films")
        [group] = [group for group in films.duplicates(0.999) if len(group.paths) > 1]
        assert sorted(map(os.path.basename, group.paths)) == ["again.mp4", "loud.mp4", "silent.mp4"]
        assert 0.999 <= group.cosine <= 1.0001


class TestSearching:
    def test_by_text_path_and_both(self, library: Library, media: Path) -> None:
        path = media / "trip" / "beach_5.png"
        assert names(library.search(str(path), k=2))[0] == "beach_5.png"
        assert names(library.search(f"image:{path}", k=1)) == ["beach_5.png"]
        best = library.search(f"image:{path} + 0.2*text:indoors - 0.1*'a dog'", k=1)[0]
        assert Path(best.path).name == "beach_5.png"
        assert best.cosine < 0.999
        terms = [Term("image", str(path)), Term("text", "a dog barks", 3.0)]
        assert names(library.search(terms, k=2, want=["text"])) == ["note.txt"]
        row = library.model.embed([path])
        assert names(library.search(row, k=1)) == ["beach_5.png"]

    def test_cosines_are_exact_and_scores_fall(self, library: Library, media: Path) -> None:
        query = library.model.embed([media / "trip" / "beach_5.png"])
        hits = library.search(query, k=20)
        for hit in hits:
            expected = query.vectors[0] @ library.model.embed([hit.path]).vectors[0]
            assert hit.cosine == pytest.approx(float(expected), abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_filters(self, library: Library, media: Path) -> None:
        hits = library.search("x", k=50, where="folder = 'home' and modality = 'image'")
        assert sorted(names(hits)) == ["cat_10.png", "cat_11.png", "cat_8.png", "cat_9.png"]
        with pytest.raises(WhereError, match=r"no file has metadata 'fodler'.*columns: path") as caught:
            library.search("x", where="size_bytes > 0 and fodler = 'home'")
        assert caught.value.position == 19
        assert names(library.search("a dog", want=["audio", "thermal"])) == []
        assert names(library.search("a dog", want=["text"])) == ["note.txt"]

    def test_a_filter_that_many_pass_gives_what_one_by_one_gives(
        self, library: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        condition = "name like '%1%' or folder = 'home'"
        one_by_one = library.search("x", k=4, where=condition)
        monkeypatch.setattr("serve.library.search.EXACT_ITEMS", 0)
        assert [h.item_id for h in library.search("x", k=4, where=condition)] == [h.item_id for h in one_by_one]

    def test_a_filter_that_most_pass_needs_no_list_of_them(
        self, library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The best one does not pass: with one hit fetched for each that is wanted, the list is needed; with more, not.
        query, condition = library.model.embed([media / "home" / "cat_8.png"]), "name != 'cat_8.png'"
        listed: list[Where] = []
        passing = Catalogue.passing
        monkeypatch.setattr(Catalogue, "passing", lambda self, where: (listed.append(where), passing(self, where))[1])
        with monkeypatch.context() as narrow:
            narrow.setattr("serve.library.search._FETCHED_FOR_A_FILTER", 1)
            expected = library.search(query, k=2, want=["image"], where=condition)
        assert len(listed) == 1
        found = library.search(query, k=2, want=["image"], where=condition)
        assert [hit.item_id for hit in found] == [hit.item_id for hit in expected]
        assert len(listed) == 1
        assert len(expected) == 2
        assert "cat_8.png" not in names(expected)

    def test_keywords_can_be_switched(self, library: Library, media: Path) -> None:
        with_words = library.search("beach", k=50)
        assert {hit.keyword for hit in with_words if "beach" in hit.path.rsplit("/", 1)[1]} == {True}
        without = library.search("beach", k=50, keywords=False)
        assert {hit.keyword for hit in without} == {False}
        composed = f"image:{media / 'home' / 'cat_8.png'} + text:beach"
        assert not any(hit.keyword for hit in library.search(composed))
        assert any(hit.keyword for hit in library.search(composed, keywords=True))
        assert not any(hit.keyword for hit in library.search("dog - beach", want=["image"]))

    def test_a_keyword_hit_far_down_the_vector_ranking_is_found(self, library: Library, media: Path) -> None:
        for number in range(8):
            (media / "trip" / f"beach_{number}.png").rename(media / f"word{'abcdefgh'[number]}.png")
        library.index(media)
        for letter in "abcdefgh":
            assert names(library.search(f"word{letter}", k=1)) == [f"word{letter}.png"]
            assert names(library.search(f"word{letter}", k=1, want=["text"])) == ["note.txt"]

    def test_similar_and_item(self, library: Library, media: Path) -> None:
        hit = library.search(str(media / "trip" / "beach_5.png"), k=1)[0]
        assert library.item(hit.item_id).path == hit.path
        others = library.similar(hit.item_id, k=3)
        assert len(others) == 3
        assert hit.path not in {other.path for other in others}
        with pytest.raises(LibraryError, match="no item 999"):
            library.item(999)

    @pytest.mark.parametrize(
        ("query", "error"),
        [
            ("", QueryError),
            ("image:", QueryError),
            ("image:nowhere.png", MediaError),
            ("text:dog - text:dog", ValueError),
            ([], ValueError),
        ],
    )
    def test_bad_queries(self, library: Library, query: str, error: type[Exception]) -> None:
        with pytest.raises(error):
            library.search(query)

    def test_bad_arguments(self, library: Library) -> None:
        with pytest.raises(ValueError, match="k >= 1"):
            library.search("dog", k=0)
        with pytest.raises(ValueError, match="no modality 'smell'"):
            library.search("dog", want=["smell"])
        with pytest.raises(ValueError, match=r"use \['image'\]"):
            library.search("dog", want="image")
        with pytest.raises(SpaceError):
            library.search(Embeddings(unit(np.ones((1, tiny.DIM))), "other"))

    def test_an_empty_library_finds_nothing(self, tmp_path: Path, model: BindModel) -> None:
        library = Library.open(tmp_path / "new", model)
        assert library.search("dog", where="anything = 1") == []
        assert (library.count(), len(library), library.duplicates()) == ({}, 0, [])


class TestOpening:
    def test_another_space_is_refused(self, library: Library) -> None:
        other = tiny.model(seed=1)
        with pytest.raises(OtherModelError) as caught:
            Library.open(library.folder, other)
        message = str(caught.value)
        assert library.model.space in message
        assert other.space in message
        assert "tiny-0" in message

    def test_a_reader_sees_what_a_writer_adds(self, library: Library, media: Path, model: BindModel) -> None:
        reader = Library.open(library.folder, model)
        path = tiny.picture(media / "new.png", 92)
        library.index(media)
        assert names(reader.search(str(path), k=1)) == ["new.png"]
        path.unlink()
        for _ in range(2):  # the second saving forgets what the first recorded as removed
            library.index(media)
        assert "new.png" not in names(reader.search("x", k=50))

    def test_two_writers(
        self, library: Library, media: Path, model: BindModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Library.open(library.folder, model)
        tiny.picture(media / "new.png", 93)

        def progress(done: int, total: int) -> None:
            with pytest.raises(LibraryError, match="another process is writing"):
                other.index(media)
            assert other.search("x", k=1)

        assert library.index(media, progress=progress).added == 1
        assert other.index(media).unchanged == 14

    @pytest.mark.parametrize("damage", ["vectors cut", "faiss changed", "gone", "pointer cut", "behind", "ahead"])
    def test_a_damaged_or_old_index_is_made_anew(
        self, library: Library, model: BindModel, media: Path, damage: str
    ) -> None:
        expected = [(hit.path, hit.cosine) for hit in library.search("x", k=50)]
        [generation] = (library.folder / "index").glob("*/generation-*")
        if damage == "vectors cut":
            with (generation / "0.vectors").open("r+b") as file:
                file.truncate(100)
        elif damage == "faiss changed":
            content = bytearray((generation / "0.ids").read_bytes())
            content[0] ^= 1
            (generation / "0.ids").write_bytes(content)
        elif damage == "gone":
            shutil.rmtree(library.folder / "index")
        elif damage == "pointer cut":
            (generation.parent / "CURRENT").write_text("genera")
        elif damage == "behind":
            generation.parent.rename(library.folder / "index" / "0")
        else:
            generation.parent.rename(library.folder / "index" / "9999")
        opened = Library.open(library.folder, model)
        assert [(hit.path, hit.cosine) for hit in opened.search("x", k=50)] == expected
        opened.index(media)
        assert len(list((library.folder / "index").iterdir())) == 1
        assert [(h.path, h.cosine) for h in Library.open(library.folder, model).search("x", k=50)] == expected

    def test_loading_maps_the_vectors(
        self, library: Library, model: BindModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("vectors were read from the catalogue")

        monkeypatch.setattr(Catalogue, "vectors", refuse)
        monkeypatch.setattr(Index, "add", refuse)
        Library.open(library.folder, model)

    def test_another_factory(self, library: Library, model: BindModel, media: Path) -> None:
        expected = names(library.search("x", k=5))
        assert names(Library.open(library.folder, model, factory="HNSW8").search("x", k=5)) == expected

    def test_a_full_disk_while_the_index_is_saved(
        self, library: Library, media: Path, model: BindModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny.picture(media / "new.png", 94)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Index, "save", full)
        with pytest.raises(LibraryError, match="No space left"):
            library.index(media)
        monkeypatch.undo()
        for opened in (library, Library.open(library.folder, model)):
            assert names(opened.search(str(media / "new.png"), k=1)) == ["new.png"]


class TestCalibration:
    """Pictures, sounds and texts of one latent meaning, each modality with an offset and a scale of its own."""

    MEANINGS = 40
    EACH = 5

    @pytest.fixture
    def planted(self, tmp_path: Path, model: BindModel) -> tuple[Library, Embeddings]:
        rng = np.random.default_rng(0)
        meanings = unit(rng.standard_normal((self.MEANINGS, tiny.DIM)))
        gaps = unit(rng.standard_normal((3, tiny.DIM)))
        strengths = {"image": (0.3, 1.0), "audio": (2.0, 0.5), "text": (0.5, 1.0)}

        def made(modality: str, meaning: int, gap: np.ndarray) -> np.ndarray:
            offset, scale = strengths[modality]
            noise = 0.08 * rng.standard_normal(tiny.DIM)
            return unit((offset * gap + scale * (meanings[meaning] + noise))[None])[0]

        queries = unit(np.stack([meanings[m] + 0.4 * (gaps[0] - gaps[1]) for m in range(self.MEANINGS)]))
        catalogue = Catalogue(tmp_path / "planted", model.space, model.dim, "tiny-0")
        with catalogue.write() as writer, writer.transaction():
            for modality, gap in zip(("image", "audio"), gaps, strict=False):
                for meaning in range(self.MEANINGS):
                    for number in range(self.EACH):
                        name = f"{modality}{meaning}-{number}"
                        key = ContentKey(name.encode(), modality, "{}")
                        segment = NewSegment(modality, None, None, made(modality, meaning, gap))
                        content = writer.put_content(key, [modality], [segment], [])
                        writer.put_file(NewFile(f"/{name}", str(meaning), (1, 1, ""), content))
        catalogue.close()
        return Library.open(tmp_path / "planted", model), Embeddings(queries, model.space)

    def recall(self, library: Library, queries: Embeddings, calibrate: bool) -> float:
        found = 0
        for meaning in range(self.MEANINGS):
            hits = library.search(queries[meaning], k=10, calibrate=calibrate)
            found += sum(hit.path[1:].split("-")[0] in (f"image{meaning}", f"audio{meaning}") for hit in hits)
        return found / (self.MEANINGS * 2 * self.EACH)

    def test_mixed_rankings_are_fair(self, planted: tuple[Library, Embeddings]) -> None:
        calibrated, bare = (self.recall(*planted, calibrate=on) for on in (True, False))
        assert bare < 0.7  # pictures are in front of all sounds
        assert calibrated > 0.9

    def test_a_ranking_of_one_modality_is_left_alone(self, planted: tuple[Library, Embeddings]) -> None:
        library, queries = planted
        for on in (True, False):
            hits = library.search(queries[0], k=20, want=["audio"], calibrate=on)
            assert [hit.cosine for hit in hits] == sorted((hit.cosine for hit in hits), reverse=True)

    def test_scores_of_random_items_are_around_0_with_deviation_1(self) -> None:
        rng = np.random.default_rng(1)
        query = unit(rng.standard_normal((1, 64)))[0]
        gap = 0.8 * unit(rng.standard_normal((1, 64)))
        samples = {
            "image": unit(rng.standard_normal((500, 64))),
            "audio": unit(gap + rng.standard_normal((500, 64)) / 40),
        }
        for modality, scale in calibration.scales(query, samples).items():
            scores = scale.score(samples[modality] @ query)
            assert abs(np.median(scores)) < 0.02, modality
            assert 0.85 < scores.std() < 1.15, modality

    def test_one_item_is_measured_by_the_scale_of_the_others(self) -> None:
        rng = np.random.default_rng(2)
        query = unit(rng.standard_normal((1, 64)))[0]
        samples = {"image": unit(rng.standard_normal((500, 64))), "audio": query[None]}
        scales = calibration.scales(query, samples)
        assert scales["audio"].score(np.array(1.0)) > 5  # found, though it is all there is to compare with
        alone = calibration.scales(query, {"audio": query[None]})["audio"]
        assert alone.score(np.array(1.0)) == pytest.approx(0, abs=1e-3)
        assert calibration.scales(query, {}) == {}


def test_the_small_model_end_to_end(tmp_path: Path) -> None:
    from serve.demo import demo

    folder = tmp_path / "photos"
    folder.mkdir()
    for number, sample in enumerate(demo.EVERYDAY[:6]):
        shutil.copy(sample.path, folder / f"{number}{sample.path.suffix}")  # names that give nothing away
    library = Library.open(tmp_path / "library", "small")
    assert library.index(folder).added == 6
    reopened = Library.open(tmp_path / "library")  # its model is known
    for number in (1, 2, 3):
        hit = reopened.search(demo.EVERYDAY[number].caption, k=1)[0]
        assert Path(hit.path).stem == str(number), demo.EVERYDAY[number].caption


def test_a_checkpoint_folder_is_found_again(tmp_path: Path) -> None:
    """Whether the library was given the folder or the model that was loaded from it."""
    bind.load("small").save(tmp_path / "mine")
    for number, model in enumerate((tmp_path / "mine", bind.load(tmp_path / "mine"))):
        Library.open(tmp_path / str(number), model).close()
        with Library.open(tmp_path / str(number)) as again:
            assert again.model.origin == str(tmp_path / "mine")
