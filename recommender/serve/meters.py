"""What Prometheus reads at /metrics. One registry an application, so that several can live in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Meters:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter(
            "dualview_requests", "Requests by route and status.", ["method", "route", "status"], **own
        )
        self.seconds = Histogram(
            "dualview_request_seconds",
            "From the first byte read to the last byte given.",
            ["route"],
            buckets=SECONDS,
            **own,
        )
        self.open = Gauge("dualview_requests_open", "Requests being answered.", **own)
        self.pending = Gauge("dualview_pool_pending", "Requests that wait for a thread or have one.", **own)
        self.refused = Counter("dualview_overload", "Requests refused since too many waited.", **own)
        self.batch = Histogram(
            "dualview_batch_size",
            "Searches that were done together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            **own,
        )
        self.reloads = Counter(
            "dualview_reloads", "Releases opened to be served, by outcome.", ["outcome"], **own
        )
        self.reload_failing = Gauge(
            "dualview_reload_failing", "1 while a newer release cannot be opened.", **own
        )
        self.served = Gauge("dualview_release", "1 for what answers now.", ["release", "run"], **own)
        self.snapshots = Gauge("dualview_snapshots_open", "Releases held open.", **own)
        for outcome in ("swapped", "failed"):
            self.reloads.labels(outcome)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        found: bytes = generate_latest(self.registry)
        return found
