"""mteb's scoreboard: its own tasks by name, and retrieval tasks in its form that are made of manifests.

mteb has no tasks for depth, thermal images and motion. Those that are made here carry each medium as its file, for
models that read it, and a picture or a wave of it, so that any model of pictures or sounds can run them too.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bind import modalities
from bind.model.model import BindModel
from bind.scoreboard import HINTS, MEDIUM, MODALITY, NAME, Encoder
from preprocess import manifest
from preprocess.decoding.protocol import read_here
from preprocess.extras import needs
from preprocess.manifest import Event, Manifest
from preprocess.source import Limits, MediaError, Source

_AS: dict[str, Any] = {
    "text": "text",
    "image": "image",
    "depth": "image",
    "thermal": "image",
    "audio": "audio",
    "imu": "audio",
}
"""A modality of ours -> mteb's modality that shows it to other models."""
_MOST_BYTES = 64 * 2**20
"""The largest file, in bytes, that a row of a table holds."""
_RATE_HZ = 16_000
"""The rate of the waves that models without a modality get."""


def run(model: BindModel, wanted: Sequence[str], batch_size: int = 32) -> list[dict[str, Any]]:
    """A model and names of mteb's tasks, or manifests -> a row a task: `task`, `metric`, `score`, and `scores`.

    Raises ValueError for an unknown task, for a task of a hub that cannot be reached, and for a manifest that has
    nothing of two modalities of the model.
    """
    with needs("eval", "mteb's scoreboard"):
        import mteb
    tasks: list[Any] = []
    for one in wanted:
        if Path(one).suffix == ".jsonl":
            made = tasks_of(manifest.read(one), model.modalities)
            if not made:
                known = ", ".join(sorted(set(model.modalities) & set(_AS)))
                raise ValueError(f"{one}: has no two of {known} in an event")
            tasks += made
        else:
            try:
                tasks.append(mteb.get_task(one))
            except KeyError:
                raise ValueError(
                    f"mteb has no task {one!r}; mteb.get_tasks() lists all; a manifest ends in .jsonl"
                ) from None
    rows = []
    for task in tasks:
        try:
            found = mteb.evaluate(
                Encoder(model), task, cache=None, encode_kwargs={"batch_size": batch_size}, show_progress_bar=False
            )
        except (OSError, ConnectionError) as error:
            cause = " ".join(str(error).split())[:200]
            name = task.metadata.name
            raise ValueError(f"{name}: its data could not be had: {type(error).__name__}: {cause}") from None
        for result in found.task_results:
            scores = {split: entries[0] for split, entries in result.scores.items()}
            one_split: dict[str, Any] = dict(next(iter(scores.values())))
            plain = {key: value for key, value in one_split.items() if isinstance(value, int | float)}
            metric = task.metadata.main_score
            rows.append({"task": result.task_name, "metric": metric, "score": one_split["main_score"], "scores": plain})
    return rows


def tasks_of(found: Manifest, known: Sequence[str]) -> list[Any]:
    """A manifest -> a retrieval task of mteb for each ordered pair of modalities that events and model have."""
    names = [name for name in found.modalities if name in known and name in _AS]
    made = [_task(found, query, target) for query, target in itertools.permutations(names, 2)]
    return [task for task in made if task is not None]


def _task(found: Manifest, query: str, target: str) -> Any:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    events = found.pairs(query, target)
    if len(events) < 2:
        return None
    words = [part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", found.name) if part]
    name = f"{''.join(words)}{query.capitalize()}2{target.capitalize()}Retrieval"
    category: Any = f"{_AS[query][0]}2{_AS[target][0]}"
    metadata = TaskMetadata(
        name=name,
        description=f"Of each {query} of the data set {found.name}, the {target} of the same moment is looked for.",
        reference=None,
        dataset={"path": found.name, "revision": found.sha256 or "1"},
        type="Any2AnyRetrieval",
        category=category,
        modalities=sorted({_AS[query], _AS[target]}),
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def load_data(self: Any, num_proc: int | None = None, **_: Any) -> None:
        from datasets import Dataset

        asked = list(_rows(events, query, "q"))
        given = list(_rows(events, target, "d"))
        kept = {row.pop("event") for row in given} & {row["event"] for row in asked}
        relevant: dict[str, dict[str, int]] = {}
        for row in asked:
            if (event := row["event"]) in kept:
                relevant[row["id"]] = {other["id"]: 1 for other in given if other["id"].startswith(f"d{event}-")}
        asked = [row for row in asked if row.pop("event") in kept]
        split = {
            "queries": Dataset.from_list(asked),
            "corpus": Dataset.from_list(given),
            "relevant_docs": relevant,
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True

    return type(name, (AbsTaskRetrieval,), {"metadata": metadata, "load_data": load_data})()


def _rows(events: Sequence[Event], modality: str, letter: str) -> Iterator[dict[str, Any]]:
    """The rows of a table of mteb, without media that cannot be read; all captions are rows."""
    for number, event in enumerate(events):
        if modality == "text":
            for count, text in enumerate(event.texts):
                yield {"id": f"{letter}{number}-{count}", "event": number, "text": text}
            continue
        source = event.media[modality]
        try:
            with source.open(Limits()) as file:
                medium = file.read(_MOST_BYTES + 1)
            if len(medium) > _MOST_BYTES:
                continue
            shown = _shown(source, modality)
        except MediaError:
            continue
        hints = {key: value for key, value in asdict(source.hints).items() if value is not None}
        own = {MODALITY: modality, MEDIUM: medium, NAME: Path(source.name).name, HINTS: json.dumps(hints)}
        yield {"id": f"{letter}{number}-0", "event": number, _AS[modality]: shown} | own


def _shown(source: Source, modality: str) -> Any:
    """What a model without this modality gets: a picture, or a wave."""
    spec = modalities.spec(modality)
    if _AS[modality] == "image":
        if spec.read_whole is None:
            raise MediaError(source.name, f"no picture shows a {modality}")
        view = read_here(spec.read_whole, source, spec.config(), Limits(), "whole")[0].views[0]
        return _png(view)
    config = spec.config(**({"clips": 1, "clip_s": 30.0, "rate_hz": _RATE_HZ} if modality == "audio" else {}))
    wave = read_here(spec.read, source, config, Limits(), "whole")[0].views[0]
    if modality == "imu":  # the strength of the movement, as a sound
        wave = np.linalg.norm(wave[:3], axis=0)
    return {"array": np.asarray(wave, np.float32).tolist(), "sampling_rate": int(config.rate_hz)}


def _png(view: np.ndarray) -> Image.Image:
    """A raw view (H, W), (H, W, C) of any numbers -> an RGB picture; what is no picture is scaled to 0..255."""
    values = np.asarray(view)
    if values.dtype != np.uint8:
        numbers = np.nan_to_num(values.astype(np.float64))
        low, high = numbers.min(), numbers.max()
        values = ((numbers - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    if values.ndim == 3 and values.shape[2] != 3:
        values = values[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(values).convert("RGB").save(buffer, "PNG")
    return Image.open(buffer)
