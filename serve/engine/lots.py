"""More texts and media than may wait at once: embedded lot by lot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from serve.engine.jobs import Busy, EncodedSegment
from serve.engine.service import Service
from serve.engine.terms import Term
from serve.engine.values import TermError


async def embed_many(service: Service, terms: Sequence[Term]) -> list[EncodedSegment]:
    """As `Service.embed`, `max_terms` terms after `max_terms`, each lot with its own deadline.

    Other callers take turns in between. A full server is waited for once the first lot is done.
    """
    found: list[EncodedSegment] = []
    size = service.settings.max_terms
    for begin in range(0, len(terms), size):
        until = time.monotonic() + service.settings.deadline_s
        while True:
            try:
                found += await service.embed(terms[begin : begin + size])
                break
            except Busy as error:
                if not begin or time.monotonic() + error.retry_after_s > until:
                    raise
                await asyncio.sleep(error.retry_after_s)
            except TermError as error:
                raise TermError(begin + error.index, error.reason) from None
    return found
