"""The command line, `crossbind`."""

from serve.cli.commands import app, main

__all__ = ["app", "main"]
