"""What the site takes from the code: the command line's own help."""

from __future__ import annotations

from typing import Any

import typer.main

_MARK = "<!-- command line -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text -> the same with `<!-- command line -->` replaced by every command's help."""
    return markdown.replace(_MARK, _commands()) if _MARK in markdown else markdown


def _commands() -> str:
    from serve.cli.commands import app

    group: Any = typer.main.get_command(app)
    return "\n\n".join(_command(name, command) for name, command in sorted(group.commands.items()))


def _command(name: str, command: Any) -> str:
    with command.make_context(f"crossbind {name}", [], resilient_parsing=True) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        rows = [_row(parameter, context) for parameter in command.params]
    text = f"## {name}\n\n    crossbind {name} {usage}\n\n{command.help or ''}\n"
    return text + ("\n| argument or option | meaning | default |\n|---|---|---|\n" + "\n".join(rows) if rows else "")


def _row(parameter: Any, context: Any) -> str:
    is_option = parameter.param_type_name == "option"
    options = (*parameter.opts, *parameter.secondary_opts) if is_option else (parameter.name.upper(),)
    names = ", ".join(f"`{option}`" for option in options)
    about = (getattr(parameter, "help", None) or "").replace("|", "\\|")
    default = parameter.get_default(context)
    return f"| {names} | {about} | {'' if default is None or callable(default) else f'`{default}`'} |"
