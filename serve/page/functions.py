"""The page's own questions, which gradio's API engine answers at `/gradio_api/run/NAME`: all else is in `/v1`.

Each function takes JSON values and returns an object. An object with a `problem` says in words what went wrong.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, validate_call

from bind.modalities import specs
from serve.engine.jobs import Busy, LateError
from serve.engine.terms import Term
from serve.library.query import path_notes
from serve.library.text import shown
from serve.library.where import COLUMNS, WhereError
from serve.page import figures
from serve.page.examples import PICTURED, Answer, examples, item_term
from serve.page.names import in_order, plural, printable, singular

if TYPE_CHECKING:
    from serve.engine.service import Service
    from serve.engine.values import About

Function = Callable[..., Awaitable[Answer]]

MAP_ITEMS = 2000
"""The number of items on the map: more points could not be told apart, and would take long to lay out."""
FOUND_AT_MOST = 100
"""The largest k of `search`; `/v1/search` has pages."""
WHERE_EXAMPLES = (
    "folder like '%trip%'",
    "duration_s < 30 and not name like 'IMG%'",
    "taken between '2024-06' and '2024-08'",
)
"""Filters that the page shows to whoever writes one."""
_EXAMPLE_ITEMS = 100  # items of the library from which the examples are chosen
_GLIMPSE_ITEMS = 14  # pictures of the library that stand for all of it

log = logging.getLogger("crossbind.serve")


def functions(service: Service) -> dict[str, Function]:
    """The functions over a service by their names."""

    @_with_problems
    async def overview() -> Answer:
        """What the page must know before it can show anything: the model, its kinds, the library's size, examples."""
        facts = await service.read(service.about)
        sample = await service.sample(_EXAMPLE_ITEMS)
        return {
            "model": facts.model,
            "modalities": facts.modalities,
            "files": facts.files,
            "items": _items(facts),
            "names": {name: (singular(name), plural(name)) for name in specs()},
            "previews": figures.previews(service.model),
            "max_bytes": service.limits.max_bytes,
            "max_hits": service.settings.max_hits,
            "read_only": service.settings.read_only,
            "keys": bool(service.settings.api_keys),
            "examples": examples(sample, facts.modalities),
            "glimpse": [item_term(item) for item in sample if item.modality in PICTURED][:_GLIMPSE_ITEMS],
            "columns": list(COLUMNS),
            "where_examples": list(WHERE_EXAMPLES),
            "index_command": f"crossbind index FOLDER --library {_library(service)}",
        }

    @_with_problems
    async def explore(known: int | None = None) -> Answer:
        """The map: items as points (id, x, y from 0 to 1, kind, name, date), unless `known` is the current revision."""
        revision = await service.revision()
        if known == revision:
            return {"unchanged": True}
        points = await service.points(MAP_ITEMS)
        names = list(dict.fromkeys(point.modality for point in points))
        return {
            "revision": revision,
            "modalities": names,
            "total": sum((await service.read(service.counts)).values()),
            "points": [
                (p.item_id, round((p.x + 1) / 2, 4), round((p.y + 1) / 2, 4), names.index(p.modality), p.name)
                for p in points
            ],
        }

    @_with_problems
    async def about() -> Answer:
        """The model, the library, the limits, licences and version, as pairs of a name and a value."""
        return _about(service, await service.read(service.about))

    @_with_problems
    async def search(words: str, k: int = 10, want: list[str] | None = None, where: str = "") -> Answer:
        """Words -> the best hits, for programs that talk to gradio. `/v1/search` takes media and items too."""
        try:
            hits = await service.search([Term(words)], k=min(k, FOUND_AT_MOST), want=want, where=where or None)
        except WhereError as error:
            return {"problem": _problem("The filter cannot be read", str(error))}
        keys = ("item_id", "modality", "start_s", "end_s", "score", "probability")
        found = [{key: getattr(hit, key) for key in keys} | {"path": printable(hit.path)} for hit in hits]
        return {"hits": found, "notes": path_notes([words], hits)}

    return {"overview": overview, "explore": explore, "about": about, "search": search}


def _with_problems(function: Function) -> Function:
    """A function -> the same function, with its arguments checked, whose errors become a `problem` for the page."""
    checked = validate_call(function)

    @wraps(function)
    async def answered(*sent: Any, **named: Any) -> Answer:
        try:
            return await checked(*sent, **named)
        except Busy as error:
            reason = "It has as much to do as it takes at once."
            return {"problem": _problem("The server is busy", reason, "busy") | {"retry_after_s": error.retry_after_s}}
        except LateError:
            return {"problem": _problem("This took too long", "Try again; fewer words are quicker.")}
        except ValidationError:
            return {"problem": _problem("This call cannot be read", "Load the page again.")}
        except ValueError as error:  # words that are none, or k out of range
            return {"problem": _problem("This cannot be answered", str(error).rpartition(": ")[2])}
        except Exception as error:
            log.error("failed", exc_info=error, extra={"fields": {"function": function.__name__}})
            return {"problem": _problem("Something went wrong in the server", "Its log says more. Try again.")}

    return answered


def _problem(title: str, reason: str, kind: str = "failed") -> Answer:
    return {"kind": kind, "title": title, "text": reason}


def _about(service: Service, facts: About) -> Answer:
    limits, most_bytes = service.limits, service.limits.max_bytes
    model = (
        ("model", facts.model),
        ("what it is", facts.about),
        ("understands", ", ".join(plural(name) for name in facts.modalities)),
        ("has no encoder for", ", ".join(plural(name) for name in facts.missing)),
        ("dimensions", f"{facts.dim:,}"),
        ("space", facts.space),
        ("licence of the weights", facts.license),
        ("Crossbind", f"{facts.version}, Apache-2.0"),
    )
    bounds = (
        ("one upload", f"{most_bytes / 2**20:,.0f} MB"),
        ("one picture", f"{limits.max_pixels / 1e6:,.0f} million pixels"),
        ("one recording", f"{limits.max_duration_s / 60:g} minutes"),
        ("rows of motion", f"{limits.max_rows:,}"),
        ("time to decode", f"{limits.decode_timeout_s:g} s, and longer for large files"),
    )
    return {
        "model": model,
        "items": _items(facts),
        "files": facts.files,
        "limits": bounds,
    }


def _items(facts: About) -> dict[str, int]:
    """Modality -> the number of its items, in the order in which people look for them."""
    return {name: facts.items[name] for name in in_order(facts.items)}


def _library(service: Service) -> str:
    """The folder of the library as a person would type it; only its name where other machines can see the page."""
    folder = service.library.folder
    if not service.settings.is_loopback:
        return shlex.quote(shown(folder.name))
    home = Path.home()
    inside = folder.is_relative_to(home) and folder != home
    return f"~/{shlex.quote(shown(str(folder.relative_to(home))))}" if inside else shlex.quote(shown(str(folder)))
