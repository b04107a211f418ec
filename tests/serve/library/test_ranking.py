"""A score means one thing: the same item and query have one score and one place, whatever else a search asks for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bind.model.model import BindModel
from bind.space import Embeddings
from serve.library import calibration, ranking
from serve.library.catalogue import Catalogue
from serve.library.cursor import Cursor
from serve.library.errors import CursorError
from serve.library.items import Hit, Hits
from serve.library.keywords import Match
from serve.library.library import Library
from serve.library.ranking import Candidate
from serve.library.records import ContentKey, NewFile, NewSegment
from tests.serve import tiny

WORDS = ["red", "boat", "harbour", "rain"]
Item = tuple[str, str, list[np.ndarray]]


def unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return found


def vector(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.standard_normal((1, tiny.DIM)))[0]


def put(library: Library, items: Sequence[Item]) -> None:
    """Stores files of (path, modality, vectors of its stretches) with their vectors, without a model."""
    with library._catalogue.write() as writer:
        with writer.transaction():
            for path, modality, vectors in items:
                segments = [NewSegment(modality, 2.0 * at, 2.0 * at + 2, one) for at, one in enumerate(vectors)]
                content = writer.put_content(ContentKey(path.encode(), modality, "{}"), [modality], segments, [])
                folder = path.split("/")[1]
                writer.put_file(NewFile(path, folder, (1, 1, ""), content))
        library._live_index.follow(writer)


def remove(library: Library, prefix: str) -> None:
    with library._catalogue.write() as writer:
        with writer.transaction():
            gone = [number for number, path, _ in writer.files_below("/") if path.startswith(prefix)]
            assert gone
            writer.remove_files(gone)
            writer.drop_orphans()
        library._live_index.follow(writer)


def items(seed: int, count: int, at: int = 0) -> list[Item]:
    """Pictures, sounds and films of several stretches; some are equal, and some have words in their names."""
    rng = np.random.default_rng(seed)
    pool = [vector(rng) for _ in range(max(2, count // 2))]
    made: list[Item] = []
    for number in range(at, at + count):
        modality = str(rng.choice(["image", "image", "audio", "video"]))
        name = "-".join([*rng.choice(WORDS, int(rng.integers(0, 4)), False), f"n{number}"])
        length = int(rng.integers(1, 5)) if modality == "video" else 1
        vectors = [pool[int(rng.integers(len(pool)))] if rng.random() < 0.6 else vector(rng) for _ in range(length)]
        made.append((f"/folder{number % 3}/{name}.bin", modality, vectors))
    return made


@pytest.fixture(scope="module")
def model() -> BindModel:
    return tiny.model()


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory, model: BindModel) -> Iterator[Library]:
    with Library.open(tmp_path_factory.mktemp("stocked") / "library", model) as library:
        put(library, items(0, 90))
        yield library


@pytest.fixture
def library(tmp_path: Path, model: BindModel) -> Iterator[Library]:
    with Library.open(tmp_path / "library", model) as opened:
        put(opened, items(1, 60))
        yield opened


def query(library: Library, seed: int) -> Embeddings:
    return Embeddings(vector(np.random.default_rng([7, seed]))[None], library.model.space)


def places(hits: Hits) -> list[tuple[int, float, bool]]:
    return [(hit.item_id, hit.score, hit.likely) for hit in hits]


def pages(library: Library, asked: Embeddings, sizes: Iterator[int], **options: object) -> list[Hits]:
    found, cursor = [], None
    while True:
        found.append(library.find(asked, next(sizes), cursor=cursor, **options))  # type: ignore[arg-type]
        cursor = found[-1].next
        if cursor is None:
            return found


OPTIONS = st.fixed_dictionaries(
    {
        "want": st.sampled_from([None, ["image"], ["video", "audio"], ["audio"]]),
        "where": st.sampled_from([None, "folder = 'folder1'", "folder != 'folder1'", "name like '%boat%'"]),
    }
)


@given(seed=st.integers(0, 40), words=st.sampled_from(["", "boat", "red boat"]), options=OPTIONS, k=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_filters_and_k_change_neither_score_nor_order(
    stocked: Library, seed: int, words: str, options: dict[str, object], k: int
) -> None:
    asked = query(stocked, seed)
    for every_segment in (False, True):
        whole = stocked.find(asked, 10_000, words=words, every_segment=every_segment)
        scores = {hit.item_id: (hit.score, hit.cosine, hit.likely, hit.keyword) for hit in whole}
        part = stocked.find(asked, k, words=words, every_segment=every_segment, **options)  # type: ignore[arg-type]
        assert all(scores[hit.item_id] == (hit.score, hit.cosine, hit.likely, hit.keyword) for hit in part), (
            "score, likely"
        )
        order = [hit.item_id for hit in whole]
        assert [order.index(hit.item_id) for hit in part] == sorted(order.index(hit.item_id) for hit in part)
        longer = stocked.find(asked, k + 5, words=words, every_segment=every_segment, **options)  # type: ignore[arg-type]
        assert places(longer)[: len(part)] == places(part)


@given(
    seed=st.integers(0, 40),
    words=st.sampled_from(["", "boat", "red boat"]),
    options=OPTIONS,
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    every_segment=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_pages_are_the_ranking_in_pieces(
    stocked: Library, seed: int, words: str, options: dict[str, object], sizes: list[int], every_segment: bool
) -> None:
    asked, more = query(stocked, seed), {**options, "words": words, "every_segment": every_segment}
    whole = stocked.find(asked, 10_000, **more)  # type: ignore[arg-type]
    found = pages(stocked, asked, itertools.cycle(sizes), **more)
    assert [place for page in found for place in places(page)] == places(whole)
    assert {page.nothing for page in found} == {whole.nothing}
    assert sum(page.likely for page in found) == whole.likely
    assert whole.next is None


def test_likely_hits_come_first_and_both_come_before_words_alone(stocked: Library) -> None:
    seen = set()
    for seed, words in itertools.product(range(40), ("boat", "red boat", "n7")):
        hits = stocked.find(query(stocked, seed), 1000, words=words)
        assert [hit.likely for hit in hits] == sorted((hit.likely for hit in hits), reverse=True)
        assert hits.likely == sum(hit.likely for hit in hits) and hits.nothing == (hits.likely == 0)
        threshold = calibration.STANDS_OUT
        whole = [all(word in hit.path for word in words.split()) for hit in hits]
        both = [place for place, hit in enumerate(hits) if whole[place] and hit.score > threshold + 0.5]
        alone = [place for place, hit in enumerate(hits) if whole[place] and hit.score < threshold]
        seen.add(bool(both))
        assert max(both, default=-1) < min(alone, default=1000)
    assert seen == {True, False}


def test_more_words_never_bring_a_hit_down() -> None:
    def place(score: float, stands_out: bool, match: Match | None) -> tuple[int, float, int]:
        found = ranking.ranked(
            [Candidate(1, 1, "image", 0.2, score, None, stands_out)], {1: match} if match else {}, True, False
        )
        return found[0].order

    rng = np.random.default_rng(0)
    for _ in range(200):
        score, stands_out, weight = float(rng.normal(0, 3)), bool(rng.integers(2)), float(rng.random())
        steps = [None, Match(1, weight, False, False), Match(1, weight, True, False), Match(1, weight, True, True)]
        steps.append(Match(1, 1.0, True, True, 0))
        orders = [place(score, stands_out, step) for step in steps]
        assert orders == sorted(orders, reverse=True)
        assert place(score + 0.1, stands_out, steps[1]) < place(score, stands_out, steps[1])
        assert place(score, True, steps[2]) <= place(score, False, steps[2])


def test_the_same_revision_has_the_same_scores_in_every_process(stocked: Library, model: BindModel) -> None:
    asked = query(stocked, 3)
    with Library.open(stocked.folder, model) as other:
        assert places(other.find(asked, 1000)) == places(stocked.find(asked, 1000))


def test_pages_do_not_see_what_is_added_meanwhile(library: Library) -> None:
    asked = query(library, 1)
    for words in ("", "boat"):
        whole = library.find(asked, 10_000, words=words)
        first = library.find(asked, 7, words=words)
        put(library, items(5, 30, at=1000 if words else 2000))
        rest = pages_from(library, asked, first, 7, words=words)
        found = [hit.item_id for hit in [*first, *rest]]
        assert sorted(found) == sorted(hit.item_id for hit in whole), "no item twice, none lost, none new"
        if not words:  # the weight of words depends on all names, so an item may move there
            assert found == [hit.item_id for hit in whole]
    assert len(library.find(asked, 10_000)) == 120


def pages_from(library: Library, asked: Embeddings, first: Hits, k: int, **options: object) -> list[Hit]:
    rest: list[Hit] = []
    cursor = first.next
    while cursor is not None:
        page = library.find(asked, k, cursor=cursor, **options)  # type: ignore[arg-type]
        rest += page
        cursor = page.next
    return rest


def test_pages_go_on_when_items_are_removed_even_the_last_one_shown(library: Library) -> None:
    asked = query(library, 2)
    whole, first = (library.find(asked, k, want=["image"]) for k in (10_000, 9))
    gone = {first[-1].path, whole[15].path, whole[3].path}
    for path in gone:
        remove(library, path)
    rest = pages_from(library, asked, first, 9, want=["image"])
    assert [hit.item_id for hit in rest] == [hit.item_id for hit in whole[9:] if hit.path not in gone]


def test_a_cursor_is_of_one_search(library: Library) -> None:
    first = library.find(query(library, 1), 5)
    assert first.next is not None
    for token in ("", "x", "a" * 2000, "W10=", "bnVsbA==", first.next[:-8], "é", "WzEsMiwzLDQsNSw2LDdd"):
        with pytest.raises(CursorError, match="cursor"):
            library.find(query(library, 1), 5, cursor=token)
    with pytest.raises(CursorError, match="other options"):
        library.find(query(library, 1), 5, want=["image"], cursor=first.next)
    with pytest.raises(CursorError, match="another query"):
        library.find(query(library, 2), 5, cursor=first.next)
    assert len(library.find(query(library, 1), 3, cursor=first.next)) == 3, "another k goes on"
    cursor = Cursor(1, 2, 3, 4, 5, -0.1, 0.25, "image")
    assert Cursor.read(cursor.token(), 1) == cursor


def test_min_score_leaves_out_what_is_worse_on_every_page(stocked: Library) -> None:
    asked = query(stocked, 4)
    whole = stocked.find(asked, 1000)
    least = sorted(hit.score for hit in whole)[-20]
    found = pages(stocked, asked, itertools.cycle([6]), min_score=least)
    assert [hit.item_id for page in found for hit in page] == [hit.item_id for hit in whole if hit.score >= least]
    assert stocked.find(asked, 5, min_score=1e9) == [] and stocked.find(asked, 5, min_score=1e9).nothing
    with pytest.raises(ValueError, match="finite min_score"):
        stocked.find(asked, 5, min_score=float("nan"))


def test_nothing_is_likely_for_a_query_that_is_like_no_item(tmp_path: Path, model: BindModel) -> None:
    """Random items and queries are as unlike as can be; the same library has an answer for a vector that it holds."""
    rng = np.random.default_rng(9)
    with Library.open(tmp_path / "library", model) as library:
        put(library, [(f"/a/{number}.bin", "image", [vector(rng)]) for number in range(400)])
        absent = [library.find(query(library, seed), 10).nothing for seed in range(100)]
        assert np.mean(absent) > 0.9
        held = library.vectors([1, 50, 399])
        for place in range(3):
            hits = library.find(held[place], 10)
            assert not hits.nothing and hits[0].likely and hits.likely == 1


def test_a_library_of_few_items_judges_none(tmp_path: Path, model: BindModel) -> None:
    rng = np.random.default_rng(9)
    with Library.open(tmp_path / "library", model) as library:
        assert library.find(query(library, 0)).nothing, "an empty library has nothing"
        put(library, [(f"/a/{number}.bin", "image", [vector(rng)]) for number in range(calibration.FEW - 1)])
        assert {hit.likely for hit in library.find(query(library, 0), 20)} == {True}


@given(count=st.integers(0, 3000), seed=st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_a_sample_changes_by_one_item_at_most(count: int, seed: int) -> None:
    ids = np.unique(np.random.default_rng(seed).integers(1, 10**9, count))
    drawn = calibration.sample(ids)
    assert len(drawn) == min(len(ids), calibration.SAMPLE) and set(drawn) <= set(ids.tolist())
    again = calibration.sample(np.append(ids, 10**9 + 1))
    assert len(set(drawn.tolist()) - set(again.tolist())) <= 1
    if len(ids) > 2000:
        assert abs(np.mean(drawn) / np.mean(ids) - 1) < 0.15, "from everywhere"


def test_the_catalogue_says_how_words_match(library: Library) -> None:
    from serve.library.where import EVERYTHING

    catalogue: Catalogue = library._catalogue
    found = catalogue.matches("red boat", ["image", "audio", "video"], EVERYTHING, 1000)
    for content, match in found.items():
        (path,) = catalogue.paths_of(content)
        assert match.is_whole == match.is_about == ("red" in path and "boat" in path)
        assert 0 < match.weight < 1 and match.place is None
    assert {match.is_whole for match in found.values()} == {True, False}
