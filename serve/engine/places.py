"""Where pictures show what a query asks for, for many callers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bind import modalities
from bind.model.locating import Located
from preprocess.source import MediaError, Source
from serve.engine.jobs import LateError
from serve.engine.service import Service
from serve.engine.terms import Term
from serve.library.errors import UnknownItemError
from serve.library.items import Item

MOST_PICTURES = 4
"""The number of hits of a search that are looked at, because each costs about as much as a search."""


async def locate_hits(service: Service, hits: Sequence[Item], terms: Sequence[Term]) -> dict[int, Located]:
    """The first `MOST_PICTURES` hits that are pictures, and the terms of the query -> where each shows it, by item id.

    Pictures that can no longer be read are left out. Raises as `Service.embed` for the terms, and LateError.
    """
    pictures = [hit for hit in hits if modalities.spec(hit.modality).read_whole is not None][:MOST_PICTURES]
    found: dict[int, Located] = {}
    if not pictures:
        return found
    query = service.combined(await service.embed(terms), terms).vectors[0]
    for hit in pictures:
        try:
            async with asyncio.timeout(service.settings.deadline_s):
                source = Source.from_path(await service.original(hit.item_id))
                picture = await service.read_whole(source, hit.modality, service.library_limits)
                found[hit.item_id] = await service.look(picture, query)
        except TimeoutError:
            raise LateError from None
        except (MediaError, UnknownItemError):
            continue
    return found


async def locate(service: Service, picture: Term, terms: Sequence[Term]) -> Located:
    """A picture (bytes, a Path or the id of an item) and the terms of a query -> where the picture shows it.

    Raises as `Service.embed` for the terms, MediaError for what is no picture, UnknownItemError for an item, ValueError
    for terms that cancel out or another picture term, and LateError after the settings' `deadline_s`.
    """
    content, modality, limits = picture.content, picture.modality, service.limits
    if isinstance(content, (str, np.ndarray)) or not terms:
        raise ValueError("locate: expected a picture or an item, and at least one term")
    try:
        async with asyncio.timeout(service.settings.deadline_s):
            if isinstance(content, int):
                modality, limits = (await service.item(content)).modality, service.library_limits
                source = Source.from_path(await service.original(content))
            else:
                name = picture.name or (content.name if isinstance(content, Path) else "picture")
                source = Source(content, name, picture.hints)
            query = service.combined(await service.embed(terms), terms)
            return await service.look(await service.read_whole(source, modality, limits), query.vectors[0])
    except TimeoutError:
        raise LateError from None
