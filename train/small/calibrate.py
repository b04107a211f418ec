"""A model and real data -> the probability that its hits are right, for each pair of modalities (see
`bind.calibration`).

    python -m train.small.calibrate MODEL DATA [OUT] [--licence free]

writes calibration.safetensors into OUT, or else beside the weights.

Libraries of many sizes and kinds are drawn from the sets of `data.toml` that have both modalities: of one set, of few
classes, of all sets together. Half of the queries have a right item in the library; for the others, all right items are
taken out. The logistic function is fitted to the best hits of each query. An item is right if it is of the query's own
event (the item itself, where both are of one modality) or of its class. It is also right if one of its sentences is as
near to the query's as the nearest quarter of sentences of one event are to each other, because several sets contain
dogs. Held-out parts are used where a set has them; rows that a model was trained on would make it too sure.

The report gives two figures that matter to a person: the share of queries without a right item in the library that have
no hit (probability below 0.5 everywhere), and the same share for queries with one. Both are of classes and groups that
were not fitted to.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F

from bind import calibration, checkpoint, zoo
from bind.calibration import Calibration
from bind.model.model import BindModel
from train.evaluate.items import embedded
from train.small.data import Data, Licence, find, group_of
from train.small.suite import parts

_SIZES = (3, 8, 24, 64, 200, 600, 2000)
"""The numbers of items of the libraries that are drawn."""
_LIBRARIES = 15
"""The number of libraries of each size and kind."""
_QUERIES = 12
"""The number of queries to each library, half of which have a right item there."""
_HITS = 3
"""The number of best hits of each query that are fitted to."""
_SAMPLE = 512
"""The size of the sample of a library, as `serve` takes it."""
_MOST = 1500
"""The largest number of rows of a part of a set that are embedded."""
_PENALTY = 1e-3
"""The weight of the squared weights in the fit, which keeps them finite where classes are separable."""
_TOO_SURE = 0.25
"""The largest share of absent queries with an answer: a pair of modalities that is more often wrong is left out."""
_FEWEST = 24
"""The least number of items of either modality for which a pair is calibrated."""


@dataclass(frozen=True)
class Pool:
    """All items of one modality: vectors (N, D), and (N,) their sets, events and classes (-1: none) as numbers.

    `tested` (N,) says in which half of all classes and groups an item is: the half that is fitted to, or the half that
    is tested.
    """

    vectors: np.ndarray
    sets: np.ndarray
    events: np.ndarray
    classes: np.ndarray
    tested: np.ndarray


@dataclass(frozen=True)
class Fit:
    """The fit of one pair: its weights, and the shares of tested queries that have a hit of probability 0.5 or more.

    `absent` is the share for queries without a right item, `present` for queries with one; `n` is the number of each
    kind.
    """

    pair: tuple[str, str]
    weights: np.ndarray
    absent: float
    present: float
    n: int

    def __str__(self) -> str:
        query, target = self.pair
        summary = f"says nothing: {1 - self.absent:.3f} of absent ones, {1 - self.present:.3f} of present ones"
        return f"{query} -> {target}: {summary} ({self.n:,} each); weights {np.round(self.weights, 3).tolist()}"


def calibrate(model: BindModel, data: Data, seed: int = 0) -> tuple[Calibration, list[Fit]]:
    """A model and data sets -> its calibration, and the results of each pair. Pairs with too few items are left out."""
    pools = gather(model, data)
    backgrounds = {name: calibration.background(pool.vectors) for name, pool in pools.items()}
    unfitted = Calibration(model.space, backgrounds, {})
    texts = pools.get("text")
    meaning = None if texts is None else Meaning(texts)
    fits = []
    for query in pools:
        for target in pools:
            rng = np.random.default_rng([seed, *f"{query} {target}".encode()])
            ask = Asking(unfitted, query, target, pools[query], pools[target], meaning, rng)
            sides = [ask.examples(tested) for tested in (False, True)]
            if any(len(features) < 10 * _FEWEST or not 0 < right.mean() < 1 for features, right, _ in sides):
                continue
            weights = fit(sides[0][0], sides[0][1])
            fits.append(_measured((query, target), weights, sides[1][0], sides[1][2]))
    pairs = {one.pair: one.weights for one in fits if one.absent <= _TOO_SURE}
    return Calibration(model.space, backgrounds, pairs), fits


def fit(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, 4) features and (N,) which hits are right -> (4,) weights of a logistic function.

    A higher cosine must never make a hit less likely, nor a larger library one more likely, so these weights keep their
    sign.
    """
    x, y = torch.from_numpy(features).double(), torch.from_numpy(right).double()
    free = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    signs = torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    optimizer = torch.optim.LBFGS([free], max_iter=300, line_search_fn="strong_wolfe")

    def weights() -> torch.Tensor:
        return torch.where(signs == 0, free, signs * F.softplus(free))

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ weights(), y) + _PENALTY * weights().square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found: np.ndarray = weights().detach().numpy().astype(np.float32)
    return found


def gather(model: BindModel, data: Data) -> dict[str, Pool]:
    """The items of every modality that has an encoder of its own, of all sets; class names are among the texts."""
    owners = model.description.towers()
    wanted = [name for name in model.modalities if owners[name] == name]
    found: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in wanted}
    numbers: dict[tuple[str, ...], int] = {}

    def number(*what: str) -> int:
        return numbers.setdefault(what, len(numbers))

    for place, name in enumerate(data.names):
        for part in parts(data, name):
            whole = data.events(name, part)
            rng = np.random.default_rng(0)
            events = [whole[row] for row in sorted(rng.permutation(len(whole))[:_MOST].tolist())]
            for modality in wanted:
                items = embedded(model, modality, events, [])
                if not len(items.vectors):
                    continue
                of = [events[row] for row in items.events]
                labels = [one.labels[0] if len(one.labels) == 1 else "" for one in of]
                found[modality].append(
                    (
                        items.vectors,
                        np.full(len(of), place),
                        np.array([number("event", name, one.id) for one in of]),
                        np.array([number("class", name, label) if label else -1 for label in labels]),
                        # Where there are classes, they are split, because an absent thing should be one that was not
                        # fitted to.
                        np.array([_side(label or group_of(name, one)) for one, label in zip(of, labels, strict=True)]),
                    )
                )
            labels = sorted({event.labels[0] for event in events if len(event.labels) == 1})
            if labels and "text" in wanted:
                vectors = model.embed(labels, "text").vectors
                classes = np.array([number("class", name, label) for label in labels])
                sides = np.array([_side(label) for label in labels])
                # A class name is an event of its own, which no item shares.
                events_ = np.array([number("name", name, label) for label in labels])
                found["text"].append((vectors, np.full(len(labels), place), events_, classes, sides))
    return {
        name: Pool(*(np.concatenate(column) for column in zip(*parts_, strict=True)))
        for name, parts_ in found.items()
        if sum(len(one[0]) for one in parts_) >= _FEWEST
    }


def _side(name: str) -> bool:
    """Whether a name belongs to the tested half of all names, which is the same on every machine."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


class Meaning:
    """The sentences of events, which decide whether a hit of another event may be called wrong."""

    def __init__(self, texts: Pool) -> None:
        order = np.argsort(texts.events, kind="stable")
        self._vectors, events = texts.vectors[order], texts.events[order]
        self._events, self._starts = np.unique(events, return_index=True)
        twins = (events[1:] == events[:-1]) & (texts.classes[order][1:] < 0)
        cosines = (self._vectors[1:] * self._vectors[:-1]).sum(1)[twins]
        self._enough = float(np.quantile(cosines, 0.75)) if len(cosines) >= _FEWEST else 2.0

    def alike(self, sentences: np.ndarray, events: np.ndarray) -> np.ndarray:
        """(S, D) sentences of a query, (n,) events -> (n,) whether a sentence of each event is near enough to one of
        them.
        """
        if not len(sentences):
            return np.zeros(len(events), bool)
        at = np.searchsorted(self._events, events).clip(max=len(self._events) - 1)
        found: np.ndarray = self._events[at] == events
        # Only the sentences of these events are compared: a library has a few of all.
        wanted, back = np.unique(at[found], return_inverse=True)
        if len(wanted):
            counts = np.diff(np.append(self._starts, len(self._vectors)))[wanted]
            starts = np.cumsum(counts) - counts
            rows = np.arange(counts.sum()) + np.repeat(self._starts[wanted] - starts, counts)
            best = np.maximum.reduceat((self._vectors[rows] @ sentences.T).max(1), starts)
            found[found] = best[back] >= self._enough
        return found

    def of(self, event: int) -> np.ndarray:
        """The sentences of an event, (S, D)."""
        at = int(np.searchsorted(self._events, event))
        if at == len(self._events) or self._events[at] != event:
            return self._vectors[:0]
        end = self._starts[at + 1] if at + 1 < len(self._starts) else len(self._vectors)
        return self._vectors[self._starts[at] : end]


class Asking:
    """Queries of one modality in libraries of another."""

    def __init__(
        self,
        unfitted: Calibration,
        query: str,
        target: str,
        queries_pool: Pool,
        items_pool: Pool,
        meaning: Meaning | None,
        rng: np.random.Generator,
    ) -> None:
        self._unfitted, self._query, self._target = unfitted, query, target
        self._queries_pool, self._items_pool, self._meaning, self._rng = queries_pool, items_pool, meaning, rng

    def examples(self, tested: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One half of the queries -> (N, 4) features of the best hits, (N,) whether each is right, (N,) its query's
        number.

        The number is negative where the library has no right item.
        """
        queries_pool, items_pool = self._queries_pool, self._items_pool
        shared = np.intersect1d(queries_pool.sets, items_pool.sets)
        queries = np.flatnonzero((queries_pool.tested == tested) & np.isin(queries_pool.sets, shared))
        items = np.flatnonzero((items_pool.tested == tested) & np.isin(items_pool.sets, shared))
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        if len(queries) >= _FEWEST and len(items) >= _FEWEST:
            for library in _libraries(items_pool, items, self._rng):
                present = queries[self._present(queries, library)]
                for wanted in (True, False) * (_QUERIES // 2):
                    row = self._drawn(present if wanted else queries)
                    example = None if row is None else self._example(row, library, wanted)
                    if example is not None:
                        features, right = example
                        serial = (len(found) + 1) * (1 if wanted else -1)
                        found.append((features, right, np.full(len(right), serial)))
        if not found:
            return np.zeros((0, len(calibration.FEATURES))), np.zeros(0, bool), np.zeros(0, int)
        features, right, query_numbers = (np.concatenate(column) for column in zip(*found, strict=True))
        return features, right, query_numbers

    def _example(self, row: int, library: np.ndarray, wanted: bool) -> tuple[np.ndarray, np.ndarray] | None:
        """A query and a library, without its right items unless `wanted` -> features and rightness of the best hits."""
        vector, items_pool = self._queries_pool.vectors[row], self._items_pool
        right = self._right(row, library)
        if not wanted:
            library, right = library[~right], right[~right]
        if len(library) < 2:
            return None
        cosines = items_pool.vectors[library] @ vector
        sample = cosines[self._rng.permutation(len(library))[:_SAMPLE]]
        best = np.argsort(-cosines)[:_HITS]
        return self._unfitted.features(vector, self._target, cosines[best], sample, len(library)), right[best]

    def _right(self, row: int, library: np.ndarray) -> np.ndarray:
        """(N,) rows of items -> (N,) whether each is right for a query: of its event or class, or alike in meaning."""
        queries_pool, items_pool = self._queries_pool, self._items_pool
        event, kind = queries_pool.events[row], queries_pool.classes[row]
        right: np.ndarray = (items_pool.events[library] == event) | (
            (items_pool.classes[library] == kind) & (kind >= 0)
        )
        if self._meaning is not None:
            sentences = queries_pool.vectors[[row]] if self._query == "text" else self._meaning.of(event)
            right |= self._meaning.alike(sentences, items_pool.events[library])
        return right

    def _present(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """(Q,) rows of queries -> (Q,) whether the library has an item of their event or class."""
        queries_pool, items_pool = self._queries_pool, self._items_pool
        count = np.zeros(len(queries), int)
        for of, among in ((queries_pool.events, items_pool.events), (queries_pool.classes, items_pool.classes)):
            values, counts = np.unique(among[library], return_counts=True)
            at = np.searchsorted(values, of[queries]).clip(max=len(values) - 1)
            count += np.where((values[at] == of[queries]) & (of[queries] >= 0), counts[at], 0)
        present: np.ndarray = count > 0
        return present

    def _drawn(self, queries: np.ndarray) -> int | None:
        """One of the queries, drawn so that each set has the same weight; None where there are no queries."""
        if not len(queries):
            return None
        sets = self._queries_pool.sets[queries]
        return int(self._rng.choice(queries[sets == self._rng.choice(np.unique(sets))]))


def _libraries(items_pool: Pool, items: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of items of the drawn libraries: of all sets, of one set, of a few classes of one set; of many sizes."""
    sets = np.unique(items_pool.sets[items])
    for size in _SIZES:
        for _ in range(_LIBRARIES):
            one = items[items_pool.sets[items] == rng.choice(sets)]
            classes = np.unique(items_pool.classes[one])
            few = one[
                np.isin(items_pool.classes[one], rng.choice(classes, min(len(classes), int(rng.integers(1, 5))), False))
            ]
            # Sets have very different sizes, so each gets the same weight in a mixture.
            weight = 1 / np.bincount(items_pool.sets[items], minlength=sets.max() + 1)[items_pool.sets[items]]
            for choice, chances in ((items, weight / weight.sum()), (one, None), (few, None)):
                if len(choice) >= 3:
                    yield rng.choice(choice, min(size, len(choice)), False, chances)


def _measured(pair: tuple[str, str], weights: np.ndarray, features: np.ndarray, query_numbers: np.ndarray) -> Fit:
    answered: dict[int, bool] = {}
    for query, is_likely in zip(query_numbers.tolist(), (features @ weights >= 0).tolist(), strict=True):
        answered[query] = answered.get(query, False) or is_likely
    absent = [has_answer for query, has_answer in answered.items() if query < 0]
    present = [has_answer for query, has_answer in answered.items() if query > 0]
    return Fit(pair, weights, float(np.mean(absent)), float(np.mean(present)), min(len(absent), len(present)))


def write(model: BindModel, found: Calibration, folder: Path) -> None:
    """Writes the calibration beside the weights in `folder`, and adds it to their `SHA256SUMS`."""
    folder.mkdir(parents=True, exist_ok=True)
    found.write(folder / calibration.FILE)
    checkpoint.write_sums(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the calibration of the model named first, computed from the data in the folder named second."""
    parser = argparse.ArgumentParser(description="Writes calibration.safetensors for a model.")
    parser.add_argument("model", help="a name of the zoo or a checkpoint folder")
    parser.add_argument("data", help="the folder with manifests of real data sets")
    parser.add_argument("out", nargs="?", type=Path, help="where to write; left out, beside the weights")
    parser.add_argument("--licence", choices=get_args(Licence), default="all", help="which data sets to use")
    options = parser.parse_args(arguments)
    model = zoo.load(options.model, device="cuda" if torch.cuda.is_available() else "cpu")
    out = options.out
    if out is None:
        named = Path(options.model)
        out = named if (named / checkpoint.TABLE).is_file() else Path(zoo.__file__).parent / named
    data = find(options.data, options.licence)
    found, fits = calibrate(model, data)
    for reason in data.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    for one in fits:
        print(one)
    write(model, found, out)


if __name__ == "__main__":
    main()
