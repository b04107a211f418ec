from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.decoding.protocol import read_here
from preprocess.formats import sniff
from preprocess.readers.text import MAX_CHARACTERS, TextConfig, read, shape, windows
from preprocess.source import Limits, MediaError, Source

CONFIG = TextConfig()
WORDS = st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=12), max_size=60)


def _read(content: object, name: str = "a.txt") -> str:
    [segment] = read_here(read, Source(content, name), CONFIG, Limits(), "whole")
    assert (segment.start_s, segment.end_s) == (None, None)
    assert segment.views.shape == (1,)
    return str(segment.views[0])


def test_strings_files_and_bytes_are_read_as_they_are(tmp_path):
    text = "Ein Hund bellt.\n犬が吠える 🐕"
    path = tmp_path / "dog.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert _read(text) == _read(path) == _read(text.encode()) == text
    assert shape(CONFIG) == (77,)


def test_both_plans_give_the_same_segment():
    whole, parts = (read(Source("a dog", "q"), CONFIG, Limits(), plan) for plan in ("whole", "segments"))
    assert [s.views.tolist() for s in whole] == [s.views.tolist() for s in parts] == [["a dog"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "blank"),
        (" \n\t\u00a0", "blank"),
        ("\u200b", "blank"),
        (b"", "empty"),
        (b"   ", "blank"),
        ("a\0b", "character 1 is NUL"),
        (b"a\0b", "character 1 is NUL"),
        ("a\ud800", "half a pair"),
        ("caf\xe9\x07".encode("latin-1"), "byte 0xe9 at offset 3"),
        ("a dog".encode("utf-16") + b"x", "is not UTF-16 text"),
        (b"\x89PNG\r\n\x1a\n", "byte 0x89 at offset 0"),
        ("a " * MAX_CHARACTERS, "the limit is 1,000,000"),
        (b"a " * MAX_CHARACTERS, "the limit is 1,000,000"),
        (b"a" * (5 * MAX_CHARACTERS), "more than 1,000,000"),
        (17, "expected a path or bytes, got int"),
    ],
    ids=range(15),
)
def test_what_is_no_text_is_refused_with_its_reason(content, reason):
    with pytest.raises(MediaError, match=reason):
        _read(content)


def test_missing_files_and_directories_are_refused(tmp_path):
    for path, reason in ((tmp_path / "no.txt", "does not exist"), (tmp_path, "directory")):
        with pytest.raises(MediaError, match=reason):
            _read(path, str(path))


def test_a_file_cut_at_every_tenth_is_read_or_refused(tmp_path):
    data = "犬が吠える。".encode() * 7
    outcomes = set()
    for tenth in range(10):
        try:
            assert data.decode().startswith(_read(data[: len(data) * tenth // 10]))
            outcomes.add("read")
        except MediaError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}  # a cut inside a character shows, one between two does not


@settings(deadline=None, max_examples=200, derandomize=True)
@given(words=WORDS, room=st.integers(1, 30))
def test_windows_keep_every_token_in_order_and_cut_only_long_words(words, room):
    cut = windows(words, room)
    assert [token for window in cut for token in window] == [token for word in words for token in word]
    assert all(len(window) <= room for window in cut)
    assert all(cut) or cut == [[]]
    ends = np.cumsum([len(window) for window in cut])
    allowed = {0}
    total = 0
    for word in words:
        allowed.update(range(total + room, total + len(word), room))  # inside a word longer than a window
        total += len(word)
        allowed.add(total)
    assert set(ends.tolist()) <= allowed


def test_windows_are_even_and_no_more_than_needed():
    words = [[i] for i in range(80)]
    assert [len(window) for window in windows(words, 75)] == [40, 40]
    assert [len(window) for window in windows(words[:75], 75)] == [75]
    assert windows([], 75) == [[]]
    assert windows([[1] * 7], 3) == [[1] * 3, [1] * 3, [1]]
    with pytest.raises(ValueError, match="at least 1"):
        windows(words, 0)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("größe".encode("utf-8-sig"), None),
        ("größe".encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + "größe".encode("utf-16-be"), "UTF-16"),
        ("größe, breit".encode("utf-16-le"), "UTF-16"),
        ("größe, breit".encode("utf-16-be"), "UTF-16"),
        ("größe, „breit“".encode("cp1252"), "Windows-1252 or Latin-1"),
    ],
)
def test_other_encodings_are_read_with_a_note(content, note):
    (segment,) = read(Source(content, "a.txt"), TextConfig(), Limits(), "whole")
    assert str(segment.views[0]).startswith("größe")
    assert "\ufeff" not in str(segment.views[0])
    assert segment.notes == (() if note is None else (f"is not UTF-8: read as {note}",))
    assert sniff(Source(content, "a.txt"), Limits()).family == "text"


def test_with_roles_a_text_of_a_file_is_a_document() -> None:
    config = TextConfig(roles=True)
    contents = {"words": "words", b"words": "\0words"}
    for content, view in contents.items():
        (segment,) = read(Source(content, "x"), config, Limits(), "whole")
        assert list(segment.views) == [view]
    (plain,) = read(Source(b"words", "x"), TextConfig(), Limits(), "whole")
    assert list(plain.views) == ["words"]
