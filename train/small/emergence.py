"""The experiment behind the method: modalities that were never trained together can still be compared.

    python -m train.small.emergence RUN.toml TEST.jsonl OUT --seeds 0 1 2

RUN.toml binds several sensors to pictures or video only (`train/runs/emergence.toml`). For each seed, the run is
trained as it stands, and the other pairs of TEST.jsonl are measured on the result. For comparison, each of these pairs
is also trained directly: with the same encoders from new weights, the same data and as many steps, but bound to each
other (a sensor and text: the sensor to the base's frozen text tower). The command continues an interrupted experiment;
seeds may run in processes of their own, with one OUT.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln

from bind import zoo
from bind.model.model import BindModel
from preprocess import manifest
from preprocess.manifest import Event
from train.evaluate.evaluation import pair_kind
from train.evaluate.metrics import RECALLS, bootstrap, ranks
from train.trainer import loop
from train.trainer import run as runs

RANKS = "ranks.json"
"""The file of a seed's results; where it is there, the seed is not trained again."""
EMERGENT = (("depth", "thermal"), ("depth", "text"), ("thermal", "text"), ("imu", "text"), ("imu", "depth"))
"""The pairs of modalities that are measured without training on them."""


@dataclass(frozen=True)
class Row:
    """One direction of one pair: the mean recall@k over seeds, its 95 % interval over the held-out events, and
    chance.
    """

    query: str
    target: str
    kind: str
    k: int
    value: float
    low: float
    high: float
    seeds: tuple[float, ...]
    chance: float
    n: int


def table_of(whole: Mapping[str, Any], first: str, second: str) -> dict[str, Any]:
    """The run file that binds several sensors -> the run file that binds `first` to `second` and nothing else.

    A `second` that is a sensor of the file is trained too. Raises KeyError where the file does not bind `first`.
    """
    pairs = {pair["modality"]: pair for pair in whole["train"]["pairs"]}
    augment = dict(pairs[first].get("augment", {}))
    if second not in pairs or first == "imu":
        # Variants of a picture are aligned with those of its anchor; a text or a movement has no such variants.
        augment = {key: value for key, value in augment.items() if key in ("erase", "time_mask", "frequency_mask")}
    pair = pairs[first] | {"anchor": second, "augment": augment}
    tables = {name: whole["modalities"][name] for name in (first, second) if name in whole["modalities"]}
    name = f"{first}-{second}"
    return {**whole, "name": name, "modalities": tables, "train": {**whole["train"], "pairs": [pair]}}


def embedded(model: BindModel, events: Sequence[Event], names: Collection[str]) -> dict[str, np.ndarray]:
    """A model and N events that have all of these modalities -> (N, D) unit rows by modality."""
    return {name: model.embed([event.media[name] for event in events], name).vectors for name in sorted(names)}


def items_of(events: Sequence[Event], first: str, second: str) -> np.ndarray:
    """(N,) item labels: where texts are compared, events with the same caption are one item."""
    captions: dict[str, int] = {}
    if "text" not in (first, second):
        return np.arange(len(events))
    return np.array([captions.setdefault(event.texts[0], row) for row, event in enumerate(events)])


def chance(items: np.ndarray, k: int) -> float:
    """(N,) item labels -> the mean recall@k of a random order: 1 - C(N - right, k) / C(N, k) for each query."""
    total = len(items)
    right = np.bincount(items)[items].astype(float)
    with np.errstate(invalid="ignore"):
        log_miss = (
            gammaln(total - right + 1) - gammaln(total - right - k + 1) - gammaln(total + 1) + gammaln(total - k + 1)
        )
    miss = np.where(total - right >= k, np.exp(log_miss), 0.0)
    return float(1 - miss.mean())


def rows_of(query: str, target: str, kind: str, of_seeds: np.ndarray, items: np.ndarray) -> list[Row]:
    """(seeds, N) ranks -> a row for each k. The interval is a bootstrap over events of their mean over seeds."""
    rows = []
    for k in RECALLS:
        hits = (of_seeds <= k).astype(float)
        low, high = bootstrap(hits.mean(0), lambda drawn: drawn.mean(-1), np.random.default_rng(0))
        each = tuple(float(share) for share in hits.mean(1))
        rows.append(Row(query, target, kind, k, float(hits.mean()), low, high, each, chance(items, k), len(items)))
    return rows


def trained(table: Mapping[str, Any], folder: Path, out: Path, seed: int) -> BindModel:
    """Trains a run, continues it, or loads its result; its output is in `out`, beside a cache that all seeds share."""
    whole = {**table, "out": str(out), "seed": seed, "cache": {"folder": str(out.parents[1] / "cache")}}
    run = runs.parse(whole, folder, str(table["name"]))
    result = loop.train(run)
    if result.model is None or result.reason.startswith("SIG"):
        raise loop.TrainError(f"{table['name']}, seed {seed}: stopped after {result.step} steps ({result.reason})")
    device = run.device if run.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return zoo.load(str(result.model), device=device)


def measured(run_file: Path, test_file: Path, out: Path, seed: int) -> dict[str, list[int]]:
    """Trains everything for one seed -> ranks by "QUERY TARGET KIND" and item labels by "QUERY TARGET".

    The results are stored in OUT/seedN/ranks.json. Raises TrainError where those are of another run file or test set.
    """
    whole = tomllib.loads(run_file.read_text())
    test = manifest.read(test_file)
    folder = out.resolve() / f"seed{seed}"
    identity = {"run": whole, "test": test.sha256}
    if (folder / RANKS).is_file():
        stored: dict[str, Any] = json.loads((folder / RANKS).read_text())
        if {key: stored[key] for key in identity} != identity:
            raise loop.TrainError(f"{folder / RANKS} is of another run file or test set; choose another OUT")
        return dict(stored["found"])
    bound = [(pair["modality"], pair["anchor"]) for pair in whole["train"]["pairs"]]
    known = {sensor for sensor, _ in bound} | {"text"}
    emergent = [pair for pair in EMERGENT if set(pair) <= known & set(test.modalities)]
    needed = {name for pair in (*bound, *emergent) for name in pair}
    events = [event for event in test.events if needed <= set(event.media)]
    found: dict[str, list[int]] = {}

    def measure(vectors: Mapping[str, np.ndarray], first: str, second: str, kind: str) -> None:
        items = items_of(events, first, second)
        for query, target in ((first, second), (second, first)):
            found[f"{query} {target} {kind}"] = ranks(vectors[query], vectors[target], items, items).tolist()
            found[f"{query} {target}"] = items.tolist()

    model = trained(whole, run_file.parent, folder / "bound", seed)
    vectors = embedded(model, events, needed)
    for first, second in [*bound, *emergent]:
        measure(vectors, first, second, pair_kind(model.description, first, second))
    for pair in emergent:
        table = table_of(whole, *pair)
        model = trained(table, run_file.parent, folder / table["name"], seed)
        measure(embedded(model, events, pair), *pair, "direct")
    (folder / RANKS).write_text(json.dumps(identity | {"found": found}))
    return found


def experiment(run_file: Path, test_file: Path, out: Path, seeds: Sequence[int]) -> list[Row]:
    """A run file, held-out events and seeds -> all rows: trained pairs, emergent pairs, and emergent pairs trained
    directly.
    """
    of_seeds = [measured(run_file, test_file, out, seed) for seed in seeds]
    rows = []
    for key in of_seeds[0]:
        query, target, *kind = key.split()
        if kind:
            ranks_of = np.array([found[key] for found in of_seeds])
            rows += rows_of(query, target, kind[0], ranks_of, np.array(of_seeds[0][f"{query} {target}"]))
    return rows


def report(rows: list[Row]) -> str:
    """Rows -> a table with one line for each direction of a pair, emergent beside direct."""
    lines = [f"{'pair':22}{'kind':10}" + "".join(f"{f'R@{k} [95%] (chance)':32}" for k in RECALLS) + "n"]
    by = {(row.query, row.target, row.kind, row.k): row for row in rows}
    for query, target, kind in dict.fromkeys((row.query, row.target, row.kind) for row in rows):
        cells = [by[query, target, kind, k] for k in RECALLS]
        shown = [f"{c.value:.3f} [{c.low:.3f}, {c.high:.3f}] ({c.chance:.3f})" for c in cells]
        lines.append(
            f"{query + ' -> ' + target:22}{kind:10}" + "".join(f"{text:32}" for text in shown) + str(cells[0].n)
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Command line -> exit status; prints the table and writes OUT/emergence.json."""
    parser = argparse.ArgumentParser(prog="python -m train.small.emergence", description="Measures what emerges.")
    parser.add_argument(
        "run", type=Path, help="binds sensors to pictures or video only, e.g. train/runs/emergence.toml"
    )
    parser.add_argument("test", type=Path, help="a manifest of held-out events")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parsed = parser.parse_args(arguments)
    try:
        rows = experiment(parsed.run, parsed.test, parsed.out, parsed.seeds)
    except (ValueError, OSError, loop.TrainError) as error:
        print(f"emergence: {error}", file=sys.stderr)
        return 1
    (parsed.out / "emergence.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
