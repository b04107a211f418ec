"""Options that several commands have, and the values that commands make of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
import typer.core

if TYPE_CHECKING:
    from bind.model.model import BindModel
    from bind.options import LoadOptions
    from preprocess.source import Limits
    from serve.library.library import Library


DEFAULT_MODEL = "small"
"""The model that is loaded where none is named."""
Model = Annotated[str, typer.Option("--model", help="A name from `crossbind models`, or a checkpoint folder.")]
Weights = Annotated[str | None, typer.Option(help="Weights file, folder or tag for that model; `random` for none.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let a model st:NAME@COMMIT run code of its own, with your rights.")
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Decode = Annotated[
    Literal["isolated", "gpu"],
    typer.Option(help="Where files are decoded; gpu, with --device cuda, takes JPEGs whose origin is trusted only."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LibraryFolder = Annotated[Path, typer.Option("--library", help="The library's folder; made when missing.")]
LibraryModel = Annotated[
    str | None, typer.Option("--model", help="Left out: the library's own, `small` for a new one.")
]
Factory = Annotated[
    str | None,
    typer.Option(help="How to search: any FAISS factory string (HNSW32, IVF1024,PQ64); left out: as before, or Flat."),
]
Host = Annotated[str, typer.Option(help="The address to listen on. Other than loopback ones need API keys.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
ExistingLibrary = Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library's folder.")]


def failure(message: str) -> NoReturn:
    """Ends the command with status 1 and a message."""
    print(f"crossbind: {message}", file=sys.stderr)
    raise typer.Exit(1)


def usage_error(message: str) -> NoReturn:
    """Ends the command with status 2 and a message."""
    print(f"crossbind: {message}", file=sys.stderr)
    raise typer.Exit(2)


def load_options(
    model: str | None,
    weights: str | None,
    device: str,
    dtype: str,
    modalities: Collection[str] | None = None,
    trust_remote_code: bool = False,
) -> LoadOptions:
    """The options of a command for its model. Ends with a usage error before anything is loaded or created."""
    from bind.options import LoadOptions

    options = LoadOptions(model, weights, device, dtype, modalities, trust_remote_code)
    try:
        options.check()
    except ValueError as error:
        usage_error(f"{error}{_similar_model(model)}")
    return options


def _similar_model(model: str | None) -> str:
    """The name of a model that there is not -> `; did you mean NAME?` for a similar one, else nothing."""
    import difflib

    from bind import zoo

    names = zoo.names()
    found = [] if model is None or model in names else difflib.get_close_matches(model, names, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def load_model(options: LoadOptions) -> BindModel:
    """The model that the options name. Ends with a usage error where it cannot be loaded."""
    try:
        return options.load()
    except (ValueError, OSError) as error:
        usage_error(str(error))


def refuse_no_library(folder: Path, create: str = "") -> None:
    """Ends with a usage error where a folder holds no library, before a model is loaded.

    `create` is the command's own option that makes one.
    """
    from serve.library.catalogue import Catalogue

    place = folder.expanduser().absolute()
    try:
        known = Catalogue.peek(place)
    except (ValueError, OSError) as error:
        usage_error(str(error))
    if not known:
        what = "is a folder, but no library" if place.is_dir() else "does not exist"
        usage_error(
            f"there is no library {folder}: it {what}{similar(place)}; "
            f"`crossbind index FOLDER --library {folder}` makes one"
            + (f", and {create} an empty one" if create else "")
        )


def similar(place: Path) -> str:
    """A path where nothing is -> `; did you mean NAME?` where something of a similar name lies there, else nothing."""
    import difflib
    import os

    try:
        names = [] if os.path.lexists(place) else os.listdir(place.parent)
    except OSError:
        return ""
    found = difflib.get_close_matches(place.name, [name for name in names if not name.startswith(".")], n=1)
    return f"; did you mean {place.parent / found[0]}?" if found else ""


@contextlib.contextmanager
def open_library(folder: Path, model: LoadOptions | BindModel, factory: str | None) -> Iterator[Library]:
    """An open library. A failure ends the command with a message, which for a damaged catalogue names the damage."""
    from serve.library.library import Library

    try:
        opened = Library.open(folder, model, factory)
    except (ValueError, OSError) as error:
        usage_error(str(error))
    with opened:
        try:
            yield opened
        except (typer.Exit, KeyboardInterrupt):
            raise
        except Exception as error:
            from serve.library import check

            if isinstance(error, (ValueError, OSError)) and not isinstance(error, (TypeError, LookupError)):
                failure(str(error))
            if damage := check.check(opened.folder).findings:
                failure(
                    f"{folder} is damaged: {damage[0].what}; `crossbind check {folder} --repair` says what can be done"
                )
            raise


def limits_of(decode: Literal["isolated", "gpu"], device: str) -> Limits:
    """The limits of files for the option `--decode`."""
    from preprocess.source import Limits

    if decode == "gpu" and not device.startswith("cuda"):
        usage_error(f"--decode gpu: expected --device cuda beside it, got {device}")
    return Limits(decode=decode)


def terminal() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console()
