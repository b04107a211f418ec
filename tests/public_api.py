"""The public interface as text, one name a line: Python (DESIGN, section 3) and the command line (section 4).

    python -m tests.public_api > tests/public_api.txt      # after a change that is wanted

The stored list stands for what other people's programs rely on; `test_house.py` compares it with the code.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

import bind
import serve
from serve.cli.commands import app


def listing() -> str:
    """All signatures, and the commands with their options."""
    return "\n".join([*_python(), *_command_line(), ""])


def _python() -> Iterator[str]:
    for name in ("load", "combine", "names", "Index"):
        yield _signature(f"bind.{name}", getattr(bind, name))
    yield _signature("serve.Client", serve.Client)
    for owner, kind in (
        ("bind", bind.BindModel),
        ("bind", bind.Index),
        ("serve", serve.Library),
        ("serve", serve.Client),
    ):
        yield from _members(f"{owner}.{kind.__name__}", kind)
    for owner, kind in (("bind", bind.Embeddings), ("serve", serve.Term)):
        fields = ", ".join(field.name for field in dataclasses.fields(kind))
        yield f"{owner}.{kind.__name__}({fields})"
    yield from (f"{module.__name__}: {', '.join(module.__all__)}" for module in (bind, serve))


def _members(prefix: str, kind: type) -> Iterator[str]:
    ours = [base for base in reversed(kind.__mro__) if base.__module__.partition(".")[0] in ("bind", "serve")]
    members = {name: value for base in ours for name, value in vars(base).items()}
    for name, value in sorted(members.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"{prefix}.{name}"
        elif isinstance(value, (classmethod, staticmethod)):
            yield _signature(f"{prefix}.{name}", value.__func__)
        elif inspect.isfunction(value):
            yield _signature(f"{prefix}.{name}", value)


def _signature(name: str, what: Any) -> str:
    """Names, kinds and defaults of the arguments; types may become wider without anybody's program noticing."""
    signature = inspect.signature(what)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return f"{name}{signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)}"


def _command_line() -> Iterator[str]:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    inner = {f"{name} {one}": part for name, c in commands.items() for one, part in getattr(c, "commands", {}).items()}
    for name, command in sorted((commands | inner).items()):
        with command.make_context(name, [], resilient_parsing=True) as context:
            parameters = [one for one in command.get_params(context) if one.name != "help"]
        found = [" | ".join(sorted((*one.opts, *one.secondary_opts))) for one in parameters]
        yield f"crossbind {name}: {', '.join(sorted(found))}"


if __name__ == "__main__":
    print(listing(), end="")
