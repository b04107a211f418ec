"""Hits on the terminal, for people and for pipes: a table, paths, CSV or JSON; opening and copying their files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from serve.cli.options import failure

if TYPE_CHECKING:
    from serve.library.items import Hit, Hits

HitFormat = Literal["table", "paths", "csv", "json"]
_MOST_OPENED = 10
"""Files that `--open` opens at once: each is a window."""


def format_or_default(form: HitFormat | None) -> HitFormat:
    """The format that is asked for; left out, a table on a terminal, and paths in a pipe or file."""
    return form or ("table" if sys.stdout.isatty() else "paths")


def show(hits: Hits, form: HitFormat, nearest: bool) -> None:
    """Prints hits, those that are probably wrong only with `nearest`; else their number.

    A path is never broken: it stands at the end of its line in a table, and alone where it is piped. What is said
    beside a table goes to standard output with it, else to standard error.
    """
    shown = hits if nearest else hits[: hits.likely]
    beside = sys.stdout if form == "table" else sys.stderr
    if not hits:
        print("nothing found: nothing here looks like that", file=beside)
    elif hits.nothing:
        print("nothing here looks like that" + ("; the nearest:" if nearest else ""), file=beside)
        if not nearest:
            print(f"(--nearest shows the nearest {len(hits)})", file=beside)
    if form == "table":
        for line in table(shown):
            print(line)
    else:
        from serve.library import export

        print(export.part(shown, form), end="")
    if not hits.nothing and len(shown) < len(hits):
        more = f"{len(hits) - len(shown)} more are probably not what was asked for (--nearest shows them)"
        print(more, file=beside)


def table(hits: Sequence[Hit]) -> list[str]:
    """Hits -> a line each: rank, modality, stretch, score, cosine and the path; and lines of words below it.

    A column without any value is left out.
    """
    from serve.demo.demo import span
    from serve.library.export import one_line

    rows = [
        (str(rank), hit.modality, span(hit), f"{hit.score:.1f}", f"{hit.cosine:.2f}", "words" if hit.keyword else "")
        for rank, hit in enumerate(hits, 1)
    ]
    head = ("", "kind", "time", "score", "cosine", "")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    filled = [place for place, column in enumerate(zip(*rows, strict=True)) if any(column)]
    told = []
    for row, path in zip([head, *rows], ["file", *(one_line(hit.path) for hit in hits)], strict=True):
        cells = (
            f"{row[place]:>{widths[place]}}" if place in (0, 3, 4) else f"{row[place]:<{widths[place]}}"
            for place in filled
        )
        told.append(f"{'  '.join(cells)}  {path}")
    for place, hit in reversed(list(enumerate(hits, 1))):
        told[place + 1 : place + 1] = [f"      “{line.text}” ({line.place})" for line in hit.lines]
    return told if hits else []


def open_files(hits: Sequence[Hit]) -> None:
    """Opens the files of the first hits with the programs that this system has for them."""
    import typer

    for path in list(dict.fromkeys(hit.path for hit in hits))[:_MOST_OPENED]:
        if typer.launch(path):
            print(f"crossbind: {path} could not be opened", file=sys.stderr)


def copy_files(hits: Sequence[Hit], folder: Path) -> None:
    """Copies the files of hits into a folder. Ends with status 1 where one could not be copied."""
    from serve.library.export import copy_to

    done = copy_to(hits, folder)
    failed = [(path, copy) for path, copy in done if isinstance(copy, str)]
    for path, reason in failed:
        print(f"not copied {path}: {reason}", file=sys.stderr)
    print(f"{len(done) - len(failed)} files copied to {folder}", file=sys.stderr)
    if failed:
        failure(f"{len(failed)} of {len(done)} files could not be copied")
