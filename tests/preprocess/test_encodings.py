from __future__ import annotations

import pytest

from preprocess.encodings import encoding_of
from preprocess.formats import sniff
from preprocess.source import Limits, Source

WORDS = "time;accélération x (m/s²)\n0,1;2,5\n" * 20


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32"), ("latin-1", "cp1252"), ("cp1252", "cp1252"),
    ],
)  # fmt: skip
def test_encodings_are_told_from_the_first_bytes_wherever_these_end(written: str, found: str) -> None:
    content = WORDS.encode(written)
    assert content.decode(found) == WORDS
    for length in range(200, 216):
        assert encoding_of(content[:length]) == found


@pytest.mark.parametrize("content", [bytes(range(256)), b"\xff\xfb\x90\x00" * 64, b"\x81abc", b"abc\x00\x00def"])
def test_what_is_no_text_has_no_encoding(content: bytes) -> None:
    assert encoding_of(content) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_tables_and_prose_are_recognised_in_every_encoding(encoding: str) -> None:
    assert sniff(Source(WORDS.encode(encoding), "log.csv"), Limits()).name == "csv"
    assert sniff(Source(WORDS.encode(encoding), "words.txt"), Limits()).name == "text"
