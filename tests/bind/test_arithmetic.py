"""bind.arithmetic: sums of embeddings, and the query language."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bind.arithmetic import CANCEL, combine
from bind.query import QueryError, Term, format_query, parse_query
from bind.space import Embeddings, unit

NAMES = ("audio", "image", "text")
PARTS = Embeddings(unit(np.random.default_rng(0).standard_normal((3, 16))), "s")


def test_combine_is_the_normalised_weighted_sum() -> None:
    result = combine(PARTS, [1, 0.5, -2])
    total = PARTS.vectors[0] + 0.5 * PARTS.vectors[1] - 2 * PARTS.vectors[2]
    np.testing.assert_allclose(result.vectors[0], total / np.linalg.norm(total), atol=1e-6)
    assert result.space == "s" and len(result) == 1


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.sampled_from([1e-300, 1e-3, 7.0, 1e300]))
def test_only_the_ratio_of_the_weights_matters(weights: list[float], scale: float) -> None:
    assume(max(map(abs, weights)) > 1e-3)
    result = combine(PARTS, weights).vectors
    np.testing.assert_allclose(np.linalg.norm(result), 1, atol=1e-5)
    np.testing.assert_allclose(combine(PARTS, [scale * weight for weight in weights]).vectors, result, atol=1e-4)


def test_terms_that_cancel_out_are_refused() -> None:
    twice = PARTS[[0, 0, 1]]
    for weights in ([1, -1, 0], [0, 0, 0], [1, -1 + CANCEL, 0]):
        with pytest.raises(ValueError, match="cancel out"):
            combine(twice, weights)
    combine(twice, [1, -1, 0.1])
    combine(twice, [1, -1 + 3 * CANCEL, 0])
    with pytest.raises(ValueError, match="cancel out"):
        combine(PARTS[:0], [])


def test_combine_refuses_wrong_weights() -> None:
    with pytest.raises(ValueError, match="one weight for each of 3"):
        combine(PARTS, [1, 2])
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            combine(PARTS, [1, wrong, 1])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a red car", [Term(None, "a red car")]),
        ("image:dog.jpg", [Term("image", "dog.jpg")]),
        (
            "image:dog.jpg + 0.5*audio:rain.wav - text:'indoors'",
            [Term("image", "dog.jpg"), Term("audio", "rain.wav", 0.5), Term("text", "indoors", -1)],
        ),
        ("  2 *  image:  my dog.jpg  ", [Term("image", "my dog.jpg", 2)]),
        ('-text:\'it\'\'s "wet"\' + "say ""hi"""', [Term("text", 'it\'s "wet"', -1), Term(None, 'say "hi"')]),
        (
            "- a-b.jpg + c++ logo.png - it's",
            [Term(None, "a-b.jpg", -1), Term(None, "c++ logo.png"), Term(None, "it's", -1)],
        ),
        ("'rock + roll' + blues", [Term(None, "rock + roll"), Term(None, "blues")]),
        ("rock + roll", [Term(None, "rock"), Term(None, "roll")]),
        (r"C:\x.png + c:\y z.png", [Term(None, r"C:\x.png"), Term(None, r"c:\y z.png")]),
        (r"image:C:\x.png - 'image:D:\a - b.png'", [Term("image", r"C:\x.png"), Term(None, r"image:D:\a - b.png", -1)]),
        ("-1e-2*a + .5*b - -3*c", [Term(None, "a", -0.01), Term(None, "b", 0.5), Term(None, "c", 3)]),
        (
            "warning: flood + at 3:30 + Text:x",
            [Term(None, "warning: flood"), Term(None, "at 3:30"), Term(None, "Text:x")],
        ),
        ("a poster with text: SALE", [Term(None, "a poster with text: SALE")]),
        ("a\n+\tb", [Term(None, "a"), Term(None, "b")]),
        ("hund + häst 🐎", [Term(None, "hund"), Term(None, "häst 🐎")]),
    ],
)
def test_queries(query: str, expected: list[Term]) -> None:
    assert parse_query(query, NAMES) == expected


def test_the_registered_modalities_are_known_by_default() -> None:
    query = "image:dog.jpg + 0.5*audio:rain.wav - text:'indoors'"
    assert parse_query(query) == parse_query(query, NAMES)


@pytest.mark.parametrize(
    ("query", "position", "reason"),
    [
        ("", 0, "expected a path"),
        ("   ", 3, "expected a path"),
        ("-", 1, "expected a path"),
        ("a + ", 4, "expected a path"),
        ("a +", 3, "expected a path"),
        ("a + - b", 4, "expected a path"),
        ("image:", 6, "expected a path"),
        ("image:'' + a", 6, "empty quotes"),
        ("a + 2*", 6, "expected a path"),
        ("a + 'b", 4, "never closed"),
        ("a + 'b''", 4, "never closed"),
        ("'a'+'b'", 3, "white space on both sides"),
        ("'a' b", 4, "white space on both sides"),
        ("'a' +b", 4, "white space on both sides"),
        ("image:a.jpg + sound:b.wav", 14, "no modality 'sound'; known: audio, image, text"),
        ("image:a.jpg audio:b.wav", 12, "before this term"),
        ("image:a.jpg -0.5*text:b", 12, "before this term"),
        ("1e999*a", 0, "too large"),
    ],
)
def test_errors_point_at_the_character(query: str, position: int, reason: str) -> None:
    with pytest.raises(QueryError, match=reason.replace(".", r"\.")) as caught:
        parse_query(query, NAMES)
    error = caught.value
    assert error.position == position and error.query == query
    *_, shown, caret = str(error).split("\n")
    assert shown[2:] == query and caret.index("^") - 2 == position
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_caret_stays_in_its_column_under_control_characters() -> None:
    with pytest.raises(QueryError) as caught:
        parse_query("a\n+ \t'b", NAMES)
    assert str(caught.value).split("\n")[1:] == ["  a +  'b", "  " + " " * 5 + "^"]


TERMS = st.lists(
    st.builds(
        Term,
        st.sampled_from([None, *NAMES]),
        st.text(min_size=1) | st.text("'\"+-*: \\aimge", min_size=1),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    min_size=1,
    max_size=5,
)


@given(TERMS)
def test_written_queries_read_back_as_the_same_terms(terms: list[Term]) -> None:
    assert parse_query(format_query(terms), NAMES) == terms


@given(st.text("'\"+-*: \\aimge1.") | st.text())
def test_any_text_is_either_read_or_refused_with_a_position_inside_it(query: str) -> None:
    try:
        terms = parse_query(query, NAMES)
    except QueryError as error:
        position, terms = error.position, []
    else:
        position = 0
    assert 0 <= position <= len(query)
    assert not terms or parse_query(format_query(terms), NAMES) == terms


def test_a_long_hostile_query_is_read_in_linear_time() -> None:
    for query in ("a" + " " * 200_000, "'" * 200_001, "1" * 100_000 + "*", "- " * 100_000, "a:" * 100_000):
        with pytest.raises(QueryError):
            parse_query(query + " +", NAMES)


@pytest.mark.parametrize("term", [Term(None, ""), Term(None, "a", float("nan")), Term(None, "a", float("inf"))])
def test_format_refuses_what_the_language_cannot_say(term: Term) -> None:
    with pytest.raises(ValueError, match="expected a value and a finite weight"):
        format_query([term])
