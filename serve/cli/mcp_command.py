"""`crossbind mcp`: a library as tools for an agent or assistant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


@app.command()
def mcp(
    library: LibraryFolder,
    add_from: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder whose files may be added; may be given several times."),
    ] = None,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Serve a library to an agent over standard input and output (Model Context Protocol): search, look, locate, ..."""
    refuse_no_library(library)
    options = load_options(model, weights, device, dtype)
    from preprocess.extras import needs

    with needs("mcp", "crossbind mcp"):
        from serve.agents.server import server
    from importlib import metadata

    from serve.agents.tools import Tools

    say(f"{library} is opened for an agent; Ctrl-C ends it")
    with open_library(library, options, None) as opened:
        server(Tools(opened, add_from or ()), metadata.version("crossbind")).run("stdio")
