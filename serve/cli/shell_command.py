"""`crossbind shell`: a prompt on a library whose model is loaded once, so that each search takes a moment."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from serve.cli.application import app
from serve.cli.options import (
    Device,
    Dtype,
    LibraryFolder,
    LibraryModel,
    Weights,
    load_options,
    open_library,
    refuse_no_library,
)
from serve.cli.progress import say
from serve.cli.showing import HitFormat, format_or_default, open_files, show

if TYPE_CHECKING:
    from serve.library.items import Hit
    from serve.library.library import Library

_HELP = """A line is a query, as of `crossbind search`. Lines that begin with a colon:
:k 20               how many hits
:want image,video   the modalities to find; nothing behind it means all
:where EXPRESSION   a filter; nothing behind it means none
:nearest            whether the nearest are shown too where nothing looks like the query; again takes that back
:open 1 3           opens the files of these hits of the last search; nothing behind it means the first
:help, :quit"""
"""What `:help` prints."""


@dataclass
class _State:
    """What the lines of a shell have set, and the hits of the last search."""

    form: HitFormat
    k: int = 10
    want: list[str] | None = None
    where: str | None = None
    nearest: bool = False
    hits: Sequence[Hit] = ()


@app.command()
def shell(
    library: LibraryFolder,
    k: Annotated[int, typer.Option("--k", min=1, max=100_000, help="How many hits.")] = 10,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Show the nearest hits too where nothing looks like the query.")
    ] = False,
    form: Annotated[
        HitFormat | None, typer.Option("--format", help="Left out: a table on a terminal, else paths.")
    ] = None,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Search again and again: the model is loaded once. Each line of standard input is a query; :help says more."""
    refuse_no_library(library)
    options = load_options(model, weights, device, dtype)
    say("the model is loaded, which takes some seconds")
    with open_library(library, options, None) as opened:
        state = _State(format_or_default(form), k, nearest=nearest)
        prompt = ""
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (gives the prompt a history)
            prompt = "> "
            say(f"{opened.folder} has {len(opened):,} files; :help says what a line may be")
        while True:
            try:
                line = input(prompt).strip()
            except EOFError:
                return
            if line in (":quit", ":q", ":exit"):
                return
            if line:
                _do(opened, state, line)


def _do(library: Library, state: _State, line: str) -> None:
    """One line: a query, or a setting. What is wrong with it is said, and the shell goes on."""
    try:
        if line.startswith(":"):
            _set(state, *line[1:].split(maxsplit=1))
            return
        found = library.search(line, state.k, state.want, state.where)
    except (ValueError, OSError) as error:
        print(f"crossbind: {error}", file=sys.stderr, flush=True)
        return
    state.hits = found
    show(found, state.form, state.nearest)
    sys.stdout.flush()


def _set(state: _State, name: str = "", value: str = "") -> None:
    """A line behind its colon. Raises ValueError for one that makes no sense."""
    if name == "k":
        if not value.isdecimal() or not 1 <= int(value) <= 100_000:
            raise ValueError(f":k: expected a number from 1 to 100,000, got {value!r}")
        state.k = int(value)
    elif name == "want":
        state.want = [part.strip() for part in value.split(",")] if value else None
    elif name == "where":
        state.where = value or None
    elif name == "open":
        chosen = [int(part) for part in shlex.split(value) if part.isdecimal()] or [1]
        open_files([state.hits[place - 1] for place in chosen if 1 <= place <= len(state.hits)])
    elif name == "nearest":
        state.nearest = not state.nearest
    elif name == "help":
        print(_HELP)
    else:
        raise ValueError(f"there is no line :{name}; :help lists them")
