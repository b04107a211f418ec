"""The application that all commands of `crossbind` belong to."""

from __future__ import annotations

# Nothing heavy is imported at the top: `crossbind --help` answers at once.
import os
from typing import TYPE_CHECKING, Any

import typer
import typer.core

if TYPE_CHECKING:
    pass
from serve.cli.options import usage_error


class _Commands(typer.core.TyperGroup):
    """What the system refuses (a name that is too long, a folder that may not be read) is told by every command."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as error:
            place = "" if error.filename is None else f"{os.fsdecode(error.filename)[:200]}: "
            usage_error(f"{place}{error.strerror or error}")


app = typer.Typer(
    name="crossbind",
    cls=_Commands,
    help="One embedding space and one search engine for image, text, video, audio, depth, thermal and IMU.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"auto_envvar_prefix": "CROSSBIND"},
    pretty_exceptions_enable=False,
)
