"""Names as queries: one form of letters, parts of words without spaces, whole file names."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest

from bind.model.model import BindModel
from serve.library.library import Library
from serve.library.query import path_notes
from serve.library.text import MEDIA_SUFFIXES, fold, query_terms, stem_of, terms_of, words_of
from tests.serve import tiny


def made(place: Path, model: BindModel, *names: str) -> Library:
    for number, name in enumerate(names):
        (place / "media" / name).parent.mkdir(parents=True, exist_ok=True)
        # Saved under another name: Pillow wants to know the suffix.
        shutil.move(tiny.picture(place / "x.png", number), place / "media" / name)
    library = Library.open(place / "library", model)
    assert library.index(place / "media").skipped == []
    return library


def wide(text: str) -> str:
    """Letters in full width, as East Asian keyboards write them."""
    return "".join(chr(ord(letter) + 0xFEE0) if letter.isalnum() else letter for letter in text)


def by_words(library: Library, query: str) -> set[str]:
    """The names of the files that the query's words find."""
    hits = library.search(f"text:'{query}'", k=100)
    return {Path(hit.path).name for hit in hits if hit.keyword}


@pytest.mark.parametrize("query_form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("name_form", ["NFC", "NFD"])
def test_forms_of_letters_case_and_width_are_the_same(
    tmp_path: Path, model: BindModel, name_form: str, query_form: str
) -> None:
    names = ["Größe Über.png", "CAFÉ.png", wide("FULL width") + ".png", "ガラス.png", "Việt Nam.png", "STRASSE.png"]
    names = [unicodedata.normalize(name_form, name) for name in names]
    library = made(tmp_path, model, *names)
    queries = ["GRÖSSE", "größe", "café", "full", wide("WIDTH"), "ｶﾞﾗｽ", "VIỆT", "straße"]
    expected = [0, 0, 1, 2, 2, 3, 4, 5]
    for query, place in zip(queries, expected, strict=True):
        assert by_words(library, unicodedata.normalize(query_form, query)) == {names[place]}, query


def test_parts_of_words_without_spaces_are_found(tmp_path: Path, model: BindModel) -> None:
    names = [
        "東京タワーの夜景.png",
        "北京天安门广场.png",
        "ชายหาดที่ภูเก็ต.png",
        "바다사진모음.png",
        "हिन्दी पाठ.png",
        "tokyo.png",
    ]
    library = made(tmp_path, model, *names)
    for query, place in {
        "東京": 0, "タワー": 0, "夜景": 0, "景": 0, "夜": 0, "京都の夜景": 0, "天安门": 1, "广场": 1, "ภูเก็ต": 2,
        "ชายหาด": 2, "หาด": 2, "사진": 3, "바다사진": 3, "हिन्दी": 4, "Tokyo": 5,
    }.items():  # fmt: skip
        assert by_words(library, query) == {names[place]}, query
    assert by_words(library, "京") == {names[0], names[1]}
    for query in ("大阪", "京東", "ภาพ", "산", "हि"):
        assert by_words(library, query) == set(), query


def test_a_whole_file_name_finds_that_file_first_and_its_suffix_is_no_word(tmp_path: Path, model: BindModel) -> None:
    library = made(
        tmp_path, model, "IMG_1.png", "IMG_2.png", "IMG_20.png", "trip/IMG_2.png", "Sunset Beach.png", "beach beach.png"
    )
    for query in ("IMG_2.png", "img_2.PNG", wide("IMG") + "_2.png"):
        first, second = library.search(f"text:'{query}'", k=2)
        assert {Path(first.path).name, Path(second.path).name} == {"IMG_2.png"}
        assert first.keyword
    assert Path(library.search("text:'sunset beach.png'", k=1)[0].path).name == "Sunset Beach.png"
    assert library.search("text:'trip/IMG_2.png'", k=1)[0].path.endswith("trip/IMG_2.png")
    assert library.search("text:'/elsewhere/IMG_20.png'", k=1)[0].path.endswith("IMG_20.png")
    assert library.search("text:'IMG_2.png'", k=1, where="folder = 'trip'")[0].path.endswith("trip/IMG_2.png")
    assert by_words(library, "png") == by_words(library, "photo.png") == set()


def test_of_several_copies_the_one_that_matched_is_shown(tmp_path: Path, model: BindModel) -> None:
    media = tmp_path / "media"
    tiny.picture(media / "a.png", 1)
    shutil.copy(media / "a.png", media / "holiday.png")
    shutil.copy(media / "a.png", media / "z.png")
    library = Library.open(tmp_path / "library", model)
    library.index(media)
    (hit,) = library.search("text:holiday")
    assert (hit.path, hit.also) == (str(media / "holiday.png"), (str(media / "a.png"), str(media / "z.png")))
    assert library.search("text:z.png")[0].path == str(media / "z.png")
    assert library.search("text:nothing")[0].path == str(media / "a.png")


def test_a_library_of_before_gets_its_words_when_it_is_opened(tmp_path: Path, model: BindModel) -> None:
    library = made(tmp_path, model, "東京タワー.png")
    with library._catalogue.write() as writer, writer.transaction():
        connection = writer.connection
        connection.execute("DROP TABLE words")
        connection.execute("CREATE VIRTUAL TABLE words USING fts5 (name, caption, metadata)")
        connection.execute("INSERT INTO words (rowid, name) VALUES (1, '東京タワー png')")
        connection.execute("DELETE FROM facts WHERE key = 'words_revision'")
    assert by_words(library, "タワー") == set()
    with library._catalogue.write(), Library.open(tmp_path / "library", model) as meanwhile:
        assert len(meanwhile) == 1  # another process writes: the words are made next time
    with Library.open(tmp_path / "library", model) as again:
        assert by_words(again, "タワー") == {"東京タワー.png"}
        with again._catalogue.write() as writer:
            assert writer.wrong_words() == []


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("dog.jpg", True),
        ("photos/dog.jpg", True),
        ("~/photos", True),
        ("/mnt/a b", True),
        ("C:\\x\\dog.jpg", True),
        ("cats/dogs", True),
        ("a dog on a beach", False),
        ("black / white", False),
        ("24/7", False),
        ("no. 5", False),
    ],
)
def test_what_looks_like_a_path_is_said(text: str, is_path: bool) -> None:
    notes = path_notes([text])
    assert bool(notes) == is_path
    assert all(text in note and "looks like a path" in note for note in notes)


def test_terms() -> None:
    assert terms_of("東京タワー x") == ["東京", "京タ", "タワ", "ワー", "ー", "x"]
    assert query_terms("東京の夜景") == ['"東京 京の の夜 夜景"', '"東京"', '"夜景"']
    assert query_terms("犬 and a Dog.jpg") == ['"犬" *', '"dog"']
    assert words_of("ภูเก็ต हिन्दी") == ["ภูเก็ต", "हिन्दी"]
    assert fold(fold("Ǆ ß ﬁ")) == fold("Ǆ ß ﬁ") == "dž ss fi"
    assert (stem_of("a.depth.png"), stem_of("No. 5"), stem_of(".png"), stem_of("v1.2")) == (
        "a.depth", "No. 5", ".png", "v1.2",
    )  # fmt: skip


def test_suffixes_that_are_read_are_no_words() -> None:
    from preprocess.formats import _FAMILY_OF_SUFFIX

    assert {suffix.lstrip(".") for suffix in _FAMILY_OF_SUFFIX} <= MEDIA_SUFFIXES
