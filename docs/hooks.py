"""What the site takes from the code: the help of the command line, and the settings of the server."""

from __future__ import annotations

from typing import Any

import typer.main

_COMMANDS = "<!-- command line -->"
_SETTINGS = "<!-- settings -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text -> the same with its marks replaced: by every command's help, by the table of settings."""
    for mark, make in ((_COMMANDS, _commands), (_SETTINGS, _settings)):
        markdown = markdown.replace(mark, make()) if mark in markdown else markdown
    return markdown


def _settings() -> str:
    from serve.engine.settings import NOT_OPTIONS, PREFIX, Settings

    rows = ["| setting | option | environment variable | default | meaning |", "|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        option = "" if name in NOT_OPTIONS else f"`--{name.replace('_', '-')}`"
        variable = field.validation_alias or f"{PREFIX}{name.upper()}"
        default = "" if field.default in ((), None) else f"`{field.default}`"
        rows.append(f"| `{name}` | {option} | `{variable}` | {default} | {field.description} |")
    return "\n".join(rows)


def _commands() -> str:
    from serve.cli.commands import app

    group: Any = typer.main.get_command(app)
    return "\n\n".join(_command(name, command) for name, command in sorted(group.commands.items()))


def _command(name: str, command: Any) -> str:
    with command.make_context(f"crossbind {name}", [], resilient_parsing=True) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        rows = [_row(parameter, context) for parameter in command.get_params(context) if parameter.name != "help"]
    text = f"## {name}\n\n    crossbind {name} {usage}\n\n{command.help or ''}\n"
    return text + ("\n| argument or option | meaning | default |\n|---|---|---|\n" + "\n".join(rows) if rows else "")


def _row(parameter: Any, context: Any) -> str:
    is_option = parameter.param_type_name == "option"
    options = (*parameter.opts, *parameter.secondary_opts) if is_option else (parameter.name.upper(),)
    names = ", ".join(f"`{option}`" for option in options)
    about = (getattr(parameter, "help", None) or "").replace("|", "\\|")
    default = parameter.get_default(context)
    return f"| {names} | {about} | {'' if default is None or callable(default) else f'`{default}`'} |"
