"""Commands that serve a library: serve, demo."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp

    from serve.engine.settings import Settings
    from serve.library.library import Library
from serve.cli.application import app
from serve.cli.options import (
    Device,
    Dtype,
    Factory,
    Host,
    Json,
    LibraryFolder,
    LibraryModel,
    Port,
    TrustRemoteCode,
    Weights,
    failure,
    load_model,
    load_options,
    open_library,
    refuse_no_library,
    terminal,
    usage_error,
)
from serve.cli.progress import say
from serve.cli.settings_command import SettingsCommand


@app.command(cls=SettingsCommand)
def serve(
    context: typer.Context,
    library: LibraryFolder,
    model: LibraryModel = None,
    weights: Weights = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_remote_code: TrustRemoteCode = False,
    factory: Factory = None,
    settings_file: Annotated[Path | None, typer.Option(help="A TOML file with settings, as `max_terms = 100`.")] = None,
    api_keys_file: Annotated[
        Path | None, typer.Option(help="Keys that are asked for, one a line; also in CROSSBIND_API_KEYS.")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make an empty library where there is none.")] = False,
    as_json: Json = False,
) -> None:
    """Serve a library: web page on /, API on /v1, /health, /ready, /metrics."""
    from serve.engine.settings import Settings, SettingsError

    if settings_file is not None and not settings_file.is_file():
        usage_error(f"--settings-file: there is no file {settings_file}")
    keys = _api_keys(api_keys_file)
    try:
        settings = Settings.load(settings_file, **context.obj, **({"api_keys": keys} if keys else {}))
    except SettingsError as error:
        usage_error(str(error))
    options = load_options(model, weights, device, dtype, None, trust_remote_code)
    if not create:
        refuse_no_library(library, "--create")
    listening = _listen(settings)
    _serve(lambda: open_library(library, options, factory), settings, listening, as_json)


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where to keep it; in the user's cache folder when left out.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--serve", help="Open the web page on it afterwards.")] = False,
    host: Host = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Assemble a sample library from installed packages, index it, and print a few any-to-any searches."""
    from bind.cache import cache_folder
    from serve.demo import demo as shown
    from serve.engine.settings import Settings, SettingsError

    try:
        settings = Settings(host=host, port=port, log_level="warning") if open_page else None
    except SettingsError as error:
        usage_error(str(error))
    listening = _listen(settings) if settings else None
    place = folder or cache_folder() / "demo"
    model = load_model(load_options("small", None, "cpu", "float32"))
    # A newer `small` has another space, so it gets its own library beside that of the older one.
    with open_library(place / f"library-{model.space}", model, None) as library:
        try:
            shown.run(library, place / "media", terminal())
        except (ValueError, OSError) as error:
            failure(str(error))
        if settings is not None and listening is not None:
            _serve(lambda: contextlib.nullcontext(library), settings, listening, False)


def _api_keys(file: Path | None) -> tuple[str, ...]:
    """The keys of CROSSBIND_API_KEYS and of a file, without its comments; an option would show them to other users."""
    keys = os.environ.get("CROSSBIND_API_KEYS", "").replace(",", " ").split()
    if file is not None:
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            usage_error(f"--api-keys-file: {file} could not be read: {error}")
        keys += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            usage_error(f"--api-keys-file: {file} has no key")
    return tuple(keys)


def _listen(settings: Settings) -> socket.socket:
    """The bound socket to serve on; the address is taken before anything is loaded."""
    from preprocess.extras import needs

    with needs("serve", "crossbind serve"):
        from serve.http import server

    try:
        return server.bind(settings)
    except OSError as error:
        failure(f"{settings.host} port {settings.port}: {error.strerror}; choose another with --port")


def _serve(
    opening: Callable[[], AbstractContextManager[Library]], settings: Settings, listening: socket.socket, as_json: bool
) -> None:
    """Serves a library until the process is asked to end. The server answers while the library is being opened."""
    from preprocess.extras import needs

    with needs("serve", "crossbind serve"):
        from serve.http import server
        from serve.http.starting import Starting

    address = server.address(listening)
    server.configure_logging(settings.log_level)
    if sys.stderr.isatty():
        say(f"{address} answers in a moment; the model is being loaded")
    else:
        logging.getLogger("crossbind.serve").info("starting", extra={"fields": {"address": address}})
    with contextlib.ExitStack() as opened:
        libraries: list[Library] = []

        def make() -> ASGIApp:
            with needs("serve", "crossbind serve"):
                from serve.engine.service import Service
                from serve.http import api
            libraries.append(opened.enter_context(opening()))
            return api.create_app(Service(libraries[0], settings), page=settings.page)

        def announce() -> None:
            folder = libraries[0].folder
            if as_json:
                print(json.dumps({"address": address, "library": str(folder)}), flush=True)
                return
            ways = f"{address} (page on /, API on /v1)" if settings.page else f"{address}/v1"
            print(f"Crossbind serves {folder} on {ways}. Ctrl-C ends it.", flush=True)

        def end() -> None:
            running.should_exit = True

        app = Starting(settings, make, announce, end)
        running = server.server(app, settings, lambda: None)
        running.run(sockets=[listening])
        if app.error is not None:
            raise app.error
