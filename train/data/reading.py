"""Media -> prepared views, in order, while worker processes decode ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from torch import Tensor

from bind import modalities
from bind.model.pipeline import shared_pool
from preprocess.decoding.cores import available_cores
from preprocess.decoding.protocol import read_here
from preprocess.source import Limits, MediaError, Segment, Source


def prepared(sources: Sequence[Source], modality: str, config: Any, limits: Limits) -> Iterator[Tensor | MediaError]:
    """Sources -> prepared (K, *shape) views of each, or the reason why there are none, in order."""
    spec = modalities.spec(modality)
    ahead: deque[Future[list[Segment]]] = deque()
    waiting = deque(sources)
    for source in sources:
        while waiting and len(ahead) < 2 * available_cores() + 2:
            following = waiting.popleft()
            if following.is_encoded and spec.isolated:
                ahead.append(shared_pool().submit(spec.read, following, config, limits, "whole"))
            else:
                ahead.append(_done(lambda at: read_here(spec.read, at, config, limits, "whole"), following))
        try:
            (segment,) = ahead.popleft().result()
            yield spec.prepare(segment.views, config)
        except MediaError as error:
            yield error
        except ValueError as error:
            yield MediaError(source.name, str(error))


def _done(read: Callable[[Source], list[Segment]], source: Source) -> Future[list[Segment]]:
    future: Future[list[Segment]] = Future()
    try:
        future.set_result(read(source))
    except MediaError as error:
        future.set_exception(error)
    return future
