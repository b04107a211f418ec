"""The application that all commands of `crossbind` belong to."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
import typer.core

from serve.cli.options import usage_error


class _Commands(typer.core.TyperGroup):
    """The group of all commands. A refusal by the operating system ends any of them with a usage error.

    Such a refusal is, for example, a name that is too long, or a folder that may not be read.
    """

    def _invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            _add_hint(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return self._invoke(ctx)
        except BrokenPipeError:
            raise
        except ImportError as error:
            from preprocess.extras import MissingExtra

            if not isinstance(error, MissingExtra):
                raise
            usage_error(str(error))
        except OSError as error:
            place = "" if error.filename is None else f"{os.fsdecode(error.filename)[:200]}: "
            usage_error(f"{place}{error.strerror or error}")


def _add_hint(error: Any) -> None:
    """Adds to an error about an unknown option the way out for words. Typer's class for it has no public name."""
    if type(error).__name__ == "NoSuchOption" and not error.possibilities:
        error.message += ". Words that begin with - stand behind --, as in: crossbind search --library L -- -cat"


app = typer.Typer(
    name="crossbind",
    cls=_Commands,
    help="One embedding space and one search engine for image, text, video, audio, depth, thermal and IMU.",
    no_args_is_help=True,
    context_settings={"auto_envvar_prefix": "CROSSBIND"},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"crossbind {metadata.version('crossbind')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, allow_from_autoenv=False, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of `crossbind` itself."""
