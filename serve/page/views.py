"""The HTML of the page. Everything that comes from files or metadata is escaped here."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from preprocess.source import Limits, MediaError, Source
from serve.engine.jobs import Busy
from serve.library.errors import UnknownItemError
from serve.library.text import shown
from serve.library.where import COLUMNS
from serve.page import plots

if TYPE_CHECKING:
    from serve.engine.service import Service
    from serve.engine.values import About
    from serve.library.items import Hit, Item

QUOTE_CHARACTERS = 320
"""Characters of a text that its card shows."""
KEPT_FIGURES = 512
"""Figures that are kept in memory, so that the page's cards are not drawn anew with each search."""
_WORDS_MATCH = '<span title="The words are in its name, caption or metadata">words match</span>'
"""The mark of a hit that the search for words has found."""
_QUOTE_BYTES = 4 * QUOTE_CHARACTERS + 4
"""Bytes that hold so many characters of UTF-8, and one that is cut."""
_READERS = {"audio": plots.loudness, "depth": plots.depth_map, "thermal": plots.thermal_map, "imu": plots.motion}
"""Modality -> the reader of its figure."""
_NAMES = {
    "image": ("picture", "pictures"),
    "video": ("video", "videos"),
    "audio": ("sound", "sounds"),
    "text": ("text", "texts"),
    "depth": ("depth", "depth maps"),
    "thermal": ("thermal", "thermal images"),
    "imu": ("motion", "motion"),
}
"""Modality -> its name for one item and for several; any other modality is called by its own name."""
_MEANINGS = (
    (0.8, 5.0, "strong", "strong match"),
    (0.5, 3.0, "likely", "likely match"),
    (0.2, 2.0, "weak", "weak match"),
    (0.0, float("-inf"), "chance", "may be chance"),
)
"""Words for a hit, the least probability from which they hold and, without a probability, the least score.

`serve.library.calibration` explains both.
"""


def text(value: object) -> str:
    """A value -> text that is safe inside HTML and its attributes, and valid Unicode."""
    return escape(printable(str(value)), quote=True)


def printable(value: str) -> str:
    """A text without characters that are no valid Unicode, such as lone surrogates in JSON."""
    return value.encode("utf-8", "replace").decode()


def name_of(item: Item) -> str:
    """The name of an item's file, as valid text."""
    return shown(PurePath(item.path).name)


def singular(modality: str) -> str:
    """`imu` -> `motion`: the name of a modality for people."""
    return _NAMES.get(modality, (modality, modality))[0]


def plural(modality: str) -> str:
    """`image` -> `pictures`."""
    return _NAMES.get(modality, (modality, modality))[1]


def span(item: Item) -> str:
    """`0:05 to 0:15` for a stretch of a recording, '' for an item without times."""
    if item.start_s is None or item.end_s is None:
        return ""
    return " to ".join(f"{int(t // 60)}:{int(t % 60):02}" for t in (item.start_s, item.end_s))


def _from(item: Item) -> str:
    times = span(item)
    return f"from {times}" if times else ""


def meaning(score: float, probability: float | None = None) -> tuple[str, str]:
    """A calibrated score, and the probability where it is known -> a CSS class and words."""
    for likely, standing_out, name, words in _MEANINGS:
        if score >= standing_out if probability is None else probability >= likely:
            return name, words
    return _MEANINGS[-1][2:]


def quote(path: Path, limits: Limits) -> str:
    """The beginning of a text file. Raises MediaError."""
    with Source(path, path.name).open(limits) as file:
        beginning = file.read(_QUOTE_BYTES).decode("utf-8-sig", "replace")
    cut = len(beginning) > QUOTE_CHARACTERS
    return beginning[:QUOTE_CHARACTERS].rstrip() + ("…" if cut else "")


class Figures:
    """Makes the HTML of a service's items. Results of reading their files are kept for the next time."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept: OrderedDict[int, str] = OrderedDict()

    async def figure(self, item: Item) -> str:
        """An item -> the HTML that shows it: a picture, a player that starts at its stretch, a colour map, a plot or a
        quote.

        For a file that can no longer be read, the HTML says so.
        """
        name = text(name_of(item))
        media, thumbnail = f"v1/items/{item.item_id}/media", f"v1/items/{item.item_id}/thumbnail"
        stretch = "" if item.start_s is None or item.end_s is None else f"#t={item.start_s:.2f},{item.end_s:.2f}"
        player = f'src="{media}{stretch}" aria-label="{name}" data-start="{item.start_s or 0:.2f}"'
        if item.modality == "image":
            return f'<img src="{thumbnail}" alt="{name}" loading="lazy" width="256" height="256">'
        if item.modality == "video":
            return (
                f'<div class="clip"><video playsinline preload="none" poster="{thumbnail}" {player}></video>'
                f'<button type="button" class="play" data-do="play" aria-label="Play {name} {_from(item)}">'
                f"{_icon('play')}</button></div>"
            )
        read = await self._read(item)
        if item.modality == "audio":
            return f'<div class="sound">{read}<audio controls preload="metadata" {player}></audio></div>'
        return read

    async def cards(self, hits: Sequence[Hit]) -> str:
        """Hits -> a list of cards; their files are read in parallel."""
        shows = await asyncio.gather(*(self.figure(hit) for hit in hits))
        listed = "".join(card(hit, rank, shown) for rank, (hit, shown) in enumerate(zip(hits, shows, strict=True), 1))
        return f'<ol class="cards">{listed}</ol>'

    async def details(self, item: Item) -> str:
        """An item -> all facts about it, for the dialog."""
        if item.modality == "image":
            place = f"v1/items/{item.item_id}"
            shows = f'<img src="{place}/media" alt="{text(name_of(item))}" data-instead="{place}/thumbnail">'
        else:
            shows = await self.figure(item)
        return _details(item, shows)

    async def _read(self, item: Item) -> str:
        """The HTML for which the file itself must be read."""
        if item.item_id in self._kept:
            self._kept.move_to_end(item.item_id)
            return self._kept[item.item_id]
        try:
            path = await self._service.original(item.item_id)
            if item.modality == "text":
                words = await self._service.read(quote, path, self._service.library_limits)
                found = f"<blockquote>{text(words)}</blockquote>"
            elif item.modality in _READERS:
                found = await _measured(item, path, self._service)
            else:
                found = _icon("file")
        except MediaError as error:
            return f'<p class="gone">This file can no longer be shown: {text(error.reason)}</p>'
        except UnknownItemError:
            return '<p class="gone">This file is gone, or has changed since it was indexed.</p>'
        except Busy:
            return '<p class="gone">The server was too busy to show this.</p>'
        self._kept[item.item_id] = found
        while len(self._kept) > KEPT_FIGURES:
            self._kept.popitem(last=False)
        return found


async def _measured(item: Item, path: Path, service: Service) -> str:
    source = await service.read(Source.from_path, path)
    if item.start_s is not None:
        source = replace(source, hints=replace(source.hints, start_s=item.start_s, end_s=item.end_s))
    read = _READERS[item.modality]
    segment = await service.figure(read, source)
    if item.modality == "audio":
        return plots.sound_picture(segment)
    if item.modality == "imu":
        return plots.motion_picture(segment)
    if item.modality == "depth":
        colours, reading = plots.depth_picture(segment), "near is bright, far is dark"
    else:
        colours, reading = plots.thermal_picture(segment, source.hints.unit), "warm is bright, cold is dark"
    about = f"{text(name_of(item))}: {text(colours.low)} to {text(colours.high)}, {reading}"
    return (
        f'<figure><img src="{colours.address}" alt="{about}"><figcaption title="{reading}">'
        f'<span>{text(colours.low)}</span><i style="background: {colours.gradient}"></i>'
        f"<span>{text(colours.high)}</span></figcaption></figure>"
    )


def _icon(name: str) -> str:
    return f'<svg class="icon" aria-hidden="true"><use href="#i-{name}"/></svg>'


def card(hit: Hit, rank: int, shows: str) -> str:
    """A hit, its rank from 1 on, and its figure -> a card with its name, the meaning of its score, and its actions."""
    name, folder = text(name_of(hit)), text(shown(PurePath(hit.path).parent.name))
    style, words = meaning(hit.score, hit.probability)
    number = f"{round(hit.score, 1) + 0.0:.1f}".replace("-", "\N{MINUS SIGN}")
    explained = (
        f"{number} standard deviations above the usual {singular(hit.modality)} of this library for this query. "
        f"0 is any item, 2 may be chance, 5 or more stands out. Cosine {hit.cosine:.2f}."
    )
    if hit.probability is not None:
        explained += f" It is what you asked for with a probability of {hit.probability:.0%}."
    times = span(hit)
    caption = hit.metadata.get("caption")
    filled = max(0.0, min(1.0, hit.score / 8))
    label = ", ".join(filter(None, (f"{rank}. {name}", text(singular(hit.modality)), times, words)))
    return f"""
<li><article class="card" tabindex="0" data-id="{hit.item_id}" data-name="{name}" data-modality="{text(hit.modality)}"
  aria-label="{label}">
  <div class="figure">{shows}</div>
  <div class="about">
    <button type="button" class="name" data-do="details" title="{folder}/{name}">{name}</button>
    <p class="facts"><span class="badge m-{text(hit.modality)}">{text(singular(hit.modality))}</span>
      {f'<span class="time">{times}</span>' if times else ""}
      {_WORDS_MATCH if hit.keyword else ""}</p>
    {f'<p class="caption">{text(caption)}</p>' if isinstance(caption, str) and caption else ""}
    {"".join(f'<p class="caption line" title="{text(line.place)}">“{text(line.text)}”</p>' for line in hit.lines)}
    <p class="score {style}" tabindex="0" aria-describedby="why-{rank}">
      <i class="meter" style="--filled: {filled:.3f}"></i><span>{words}</span><b>{number}</b>
      <span class="tip" role="tooltip" id="why-{rank}">{text(explained)}</span></p>
    <div class="acts">
      <button type="button" data-do="more" aria-label="More like {name}">More like this</button>
      <button type="button" data-do="less" aria-label="Less like {name}">Less</button>
      <button type="button" data-do="add" aria-label="Add {name} to the query" title="Add to the query">+ Add</button>
    </div>
  </div>
</article></li>"""


def _details(item: Item, shows: str) -> str:
    name = text(name_of(item))
    facts: list[tuple[str, str]] = [
        ("kind", singular(item.modality)),
        ("folder", shown(str(PurePath(item.path).parent.name))),
        ("part", item.at or ""),
        ("stretch", span(item)),
        ("date", f"{item.date} ({item.date_source})" if item.date else ""),
        ("notes", "; ".join(item.notes)),
        ("the same content", ", ".join(shown(PurePath(path).name) for path in item.also)),
    ]
    facts += [
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in item.metadata.items()
    ]
    rows = "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in facts if value)
    return (
        f'<article class="details" data-id="{item.item_id}" data-name="{name}" data-modality="{text(item.modality)}">'
        f'<h2>{name}</h2><div class="figure">{shows}</div><dl>{rows}</dl><div class="acts">'
        '<button type="button" data-do="more">More like this</button>'
        '<button type="button" data-do="less">Less like this</button>'
        '<button type="button" data-do="add">Add to the query</button>'
        f'<a href="v1/items/{item.item_id}/media" download="{name}">Download</a></div></article>'
    )


def about(facts: About, limits: Limits, most_bytes: int) -> str:
    """The about tab: the model, the library, the limits, licences and version."""
    items = "".join(
        f'<tr><td><span class="badge m-{text(name)}">{text(singular(name))}</span></td><td>{number:,}</td></tr>'
        for name, number in facts.items.items()
    )
    missing = ", ".join(plural(name) for name in facts.missing)
    model = _table(
        ("model", facts.model),
        ("what it is", facts.about),
        ("understands", ", ".join(plural(name) for name in facts.modalities)),
        ("has no encoder for", missing),
        ("dimensions", f"{facts.dim:,}"),
        ("space", facts.space),
        ("licence of the weights", facts.license),
        ("Crossbind", f"{facts.version}, Apache-2.0"),
    )
    bounds = _table(
        ("one upload", f"{most_bytes / 2**20:,.0f} MB"),
        ("one picture", f"{limits.max_pixels / 1e6:,.0f} million pixels"),
        ("one recording", f"{limits.max_duration_s / 60:g} minutes"),
        ("rows of motion", f"{limits.max_rows:,}"),
        ("time to decode", f"{limits.decode_timeout_s:g} s, and longer for large files"),
    )
    return f"""
<div class="sheets">
<section><h2>Model</h2>{model}</section>
<section><h2>Library</h2><table><thead><tr><th>kind</th><th>items</th></tr></thead><tbody>{items}</tbody>
<tfoot><tr><td>files</td><td>{facts.files:,}</td></tr></tfoot></table>
<p>A long video or recording is several items, a few seconds each, and a video's sound track counts as sound.</p>
</section>
<section><h2>Limits</h2>{bounds}</section>
<section><h2>What a score means</h2>
<p>Each kind of media keeps to a region of its own, so bare similarities (cosines) of pictures and sounds cannot be
compared. A score can: it is how many standard deviations a result lies above the usual item of its kind, for your
query. <b>0</b> is any item, <b>2</b> may be chance among some hundred items, <b>5</b> and more stands out.</p>
</section>
<section><h2>Privacy</h2>
<p>What you add to a query is turned into a vector and forgotten: no upload is kept, neither on disk nor in a session.
This page loads nothing from other hosts.</p></section>
<section><h2>Keys</h2><dl class="keys"><dt><kbd>/</kbd></dt><dd>go to the search box</dd>
<dt><kbd>Enter</kbd></dt><dd>search; on a result: show it large</dd>
<dt><kbd>arrows</kbd></dt><dd>from result to result, and from point to point of the map</dd>
<dt><kbd>m</kbd> <kbd>l</kbd> <kbd>a</kbd></dt><dd>on a result: more like this, less like this, add to the query</dd>
<dt><kbd>Delete</kbd></dt><dd>on a term: remove it</dd></dl></section>
</div>"""


def where_help() -> str:
    """The help on filters."""
    names = ", ".join(f"<code>{text(name)}</code>" for name in COLUMNS)
    examples = (
        "folder like '%trip%'",
        "duration_s < 30 and not name like 'IMG%'",
        "date >= '2024-05'",
        "taken between '2024-06' and '2024-08'",
        "modality = 'image'",
    )
    listed = "".join(
        f'<li><button type="button" class="code" data-do="where">{text(example)}</button></li>' for example in examples
    )
    return (
        f"<p>Compare {names}, or a key of its metadata, with <code>=</code> <code>!=</code> <code>&lt;</code> "
        "<code>&lt;=</code> <code>&gt;</code> <code>&gt;=</code> <code>like</code> <code>in</code> "
        "<code>between</code> <code>is null</code>; join with <code>and</code>, <code>or</code>, <code>not</code>, "
        "parentheses.</p>"
        f"<ul>{listed}</ul>"
    )


def _table(*rows: tuple[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in rows if value) + "</dl>"
