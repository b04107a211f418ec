"""Commands that serve a library: serve, demo."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

if TYPE_CHECKING:
    import socket

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
    terminal,
    usage_error,
)
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
    listening = _listen(settings)
    with open_library(library, options, factory) as opened:
        _serve(opened, settings, listening, as_json)


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
            _serve(library, settings, listening, False)


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


def _serve(library: Library, settings: Settings, listening: socket.socket, as_json: bool) -> None:
    from preprocess.extras import needs

    with needs("serve", "crossbind serve"):
        from serve.engine.service import Service
        from serve.http import api, server

    address = server.address(listening)

    def announce() -> None:
        if as_json:
            print(json.dumps({"address": address, "library": str(library.folder)}), flush=True)
            return
        ways = f"{address} (page on /, API on /v1)" if settings.page else f"{address}/v1"
        print(f"Crossbind serves {library.folder} on {ways}. Ctrl-C ends it.", flush=True)

    server.configure_logging(settings.log_level)
    app = api.create_app(Service(library, settings), page=settings.page)
    server.server(app, settings, announce).run(sockets=[listening])
