"""The metrics of a server, for Prometheus: one registry for each server, without contents and unbounded labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format of Prometheus."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper edges of the histograms of times, from a cached answer to the timeout of a request."""


class Metrics:
    """The counters of one server. `waiting` and `items` are read when somebody reads the metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "crossbind_requests", "Answered requests.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "crossbind_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.batch_size = Histogram(
            "crossbind_batch_size",
            "Texts or media encoded together.",
            ("modality",),
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "crossbind_stage_seconds",
            "Time of a text or medium in a stage: wait and decode (pre), encode, hand out (post).",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refused = Counter("crossbind_refused", "Refused requests.", ("reason",), registry=self.registry)

    def watch(self, waiting: Callable[[], int], items: Callable[[], Mapping[str, int]]) -> None:
        """Adds the depth of the queue and the number of items by modality, which the two functions return."""
        self.registry.register(_LiveFigures(waiting, items))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _LiveFigures(Collector):
    def __init__(self, waiting: Callable[[], int], items: Callable[[], Mapping[str, int]]) -> None:
        self._waiting = waiting
        self._items = items

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("crossbind_queue_depth", "Texts and media not encoded yet.", value=self._waiting())
        items = GaugeMetricFamily("crossbind_items", "Items of the library.", labels=("modality",))
        for modality, count in self._items().items():
            items.add_metric((modality,), count)
        yield items
