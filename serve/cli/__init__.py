"""The command line, `crossbind`."""

from serve.cli.application import app
from serve.cli.commands import main

__all__ = ["app", "main"]
