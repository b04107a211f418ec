"""PDF documents."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.decoding.pool import DecodePool
from preprocess.decoding.protocol import read_here
from preprocess.formats import Format, sniff
from preprocess.readers import document
from preprocess.readers.image import ImageConfig, read
from preprocess.source import Limits, MediaError, Source

CONFIG, LIMITS = ImageConfig(), Limits()


def pdf(*pages: tuple[str, str], size: str = "200 300") -> bytes:
    """(words, fill colour as three numbers) of each page -> a document, written by hand."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, (words, colour) in enumerate(pages):
        drawn = f"{colour} rg 0 0 999 999 re f 0 0 0 rg BT /F1 12 Tf 20 20 Td ({words}) Tj ET".encode()
        head = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size}] /Contents {5 + 2 * number} 0 R"
        objects.append(f"{head} /Resources << /Font << /F1 3 0 R >> >> >>".encode())
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
    objects.append(b"<< /Title (Bridges) /Author (Ada) /CreationDate (D:20190615102030Z) >>")
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n" % count
    tail = b"trailer << /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF" % (count, count - 1, len(out))
    return out + head + table + tail


TWO = pdf(("An old bridge", "1 0 0"), ("over the river", "0 0 1"))


def test_pages_are_pictures_with_their_text() -> None:
    assert sniff(Source(TWO, "x.pdf"), LIMITS) == Format("pdf", "document")
    with DecodePool(1) as pool:
        first, second = pool.submit(read, Source(TWO, "x.pdf"), CONFIG, LIMITS, "segments").result()
        (whole,) = pool.submit(read, Source(TWO, "x.pdf"), CONFIG, LIMITS, "whole").result()
    np.testing.assert_array_equal(first.views[0, 50, 50], [255, 0, 0])
    np.testing.assert_array_equal(second.views[0, 50, 50], [0, 0, 255])
    np.testing.assert_array_equal(whole.views, first.views)
    assert (first.at, second.at, second.metadata) == ("page 1", "page 2", {})
    assert first.metadata == {
        "title": "Bridges",
        "artist": "Ada",
        "pages": 2,
        "text": "An old bridge\nover the river",
        "taken": "2019-06-15T10:20:30",
        "taken_from": "container",
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.4\n" + bytes(100), "could not be decoded"),
        (TWO[:200], "could not be decoded"),
        (pdf(("x", "1 0 0"), size="1 9000000"), "too long to show"),
    ],
)
def test_what_is_no_document_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        read_here(read, Source(data, "x.pdf"), CONFIG, LIMITS, "segments")


def test_a_long_document_is_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_MOST_CPU_S", 0.0)
    (first,) = read_here(read, Source(TWO, "x.pdf"), CONFIG, LIMITS, "segments")
    assert first.notes == ("its pages behind the first 1 took too long and were left out",)
