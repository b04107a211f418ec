"""The scores of a model, as a table, as JSON and as a drawing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from preprocess.extras import needs


@dataclass(frozen=True)
class Score:
    """One number with its 95% interval. `kind` is trained, emergent, or "" where no two modalities are compared."""

    manifest: str
    task: str
    query: str
    target: str
    kind: str
    metric: str
    value: float
    low: float
    high: float
    n: int


@dataclass
class Report:
    """All scores of a model, and what could not be read as (path, reason)."""

    model: str
    space: str
    scores: list[Score] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """The scores as aligned text, one a line."""
        rows = [("manifest", "task", "pair", "", "metric", "value", "95% interval", "n")]
        for s in self.scores:
            digits = 1 if s.metric == "median rank" else 3
            value, low, high = (f"{number:.{digits}f}" for number in (s.value, s.low, s.high))
            pair = f"{s.query} -> {s.target}"
            rows.append((s.manifest, s.task, pair, s.kind, s.metric, value, f"{low} .. {high}", str(s.n)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def json(self) -> str:
        """Model, space, scores and skipped media as JSON."""
        return json.dumps(asdict(self), indent=1)

    def plot(self, file: Path) -> None:
        """Draws the shares (recall, accuracy, mAP) with their intervals; emergent ones are hollow. SVG, PNG or PDF.

        Raises ValueError where matplotlib is not installed.
        """
        plot(self.model, [s for s in self.scores if s.metric != "median rank"], file)


def plot(model: str, shown: Sequence[Score], file: Path) -> None:
    """Draws shares with their intervals, emergent ones hollow, as SVG, PNG or PDF by the suffix of the file.

    Raises MissingExtra where matplotlib is not installed.
    """
    with needs("train", "a plot of the scores"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 1 + 0.22 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for row, s in enumerate(shown):
        face = "white" if s.kind == "emergent" else "tab:blue"
        spread = [[s.value - s.low], [s.high - s.value]]
        axes.errorbar(s.value, row, xerr=spread, fmt="o", color="tab:blue", markerfacecolor=face, gid=f"score-{row}")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    names = [
        f"{s.manifest}: {s.query} \u2192 {s.target}, {s.task} {s.metric} {s.kind and f'({s.kind})'}" for s in shown
    ]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.grid(axis="x", alpha=0.4)
    axes.set_title(f"{model}, 95% intervals")
    figure.savefig(file)


class Written(Protocol):
    """A report that can be written."""

    def table(self) -> str:
        """Aligned text."""

    def json(self) -> str:
        """Everything."""

    def plot(self, file: Path) -> None:
        """A drawing."""


def write(report: Written, folder: Path) -> None:
    """Writes `scores.txt`, `scores.json`, `scores.svg` and `scores.png` into a folder. Raises as `Report.plot` does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.txt").write_text(report.table() + "\n")
    (folder / "scores.json").write_text(report.json())
    for name in ("scores.svg", "scores.png"):
        report.plot(folder / name)
