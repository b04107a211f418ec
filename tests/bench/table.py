"""A row of a benchmark as a line of a markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def line(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The row's values under these columns: `| a | b |`."""
    return " | ".join(["", *(_cell(row[column]) for column in columns), ""]).strip()


def head(columns: Sequence[str]) -> str:
    """The two lines above all rows."""
    names = dict(zip(columns, columns, strict=True))
    return "\n".join([line(names, columns), line(dict.fromkeys(columns, "---"), columns)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)
