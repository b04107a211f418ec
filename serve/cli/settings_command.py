"""A command with one option for each setting of the server."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
import typer.core
import typer.main


class SettingsCommand(typer.core.TyperCommand):
    """A command whose `context.obj` is a mapping of the settings that were given as options.

    The settings are declared in `serve.engine.settings`. That module is imported only when this command is parsed or
    described, so that `crossbind --help` answers at once.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, the options of settings, and `--help`."""
        own = super().get_params(ctx)
        return [*own[: len(self.params)], *_settings_options(), *own[len(self.params) :]]

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        given = {option.name: ctx.params.pop(option.name) for option in _settings_options()}
        ctx.obj = {name: value for name, value in given.items() if value is not None and value != ()}
        return super().invoke(ctx)


def _settings_options() -> list[Any]:
    """One option of the command line for each setting. Values are strings, which `Settings` checks all at once."""
    from serve.engine.settings import NOT_OPTIONS, Settings

    def command(**_: Any) -> None:
        """A placeholder for the command whose options these are."""

    parameters = []
    for name, field in Settings.model_fields.items():
        if name in NOT_OPTIONS:
            continue
        kind: Any = bool if field.annotation is bool else list[str] if field.default == () else str
        default = str(field.default) if field.default not in ((), None) else False
        flag = "--" + name.replace("_", "-")
        option = typer.Option(f"{flag}/--no-{flag[2:]}" if kind is bool else flag, help=field.description)
        option.show_default = default
        option.metavar = None if kind is bool else _metavar(field.annotation)
        annotation = Annotated[kind | None, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    options = typer.Typer(add_completion=False)
    options.command()(command)
    return list(typer.main.get_command(options).params)


def _metavar(annotation: Any) -> str:
    return {int: "INTEGER", float: "NUMBER"}.get(annotation, "NUMBER" if "float" in str(annotation) else "TEXT")
