"""Count what the log store does, for Prometheus."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from narthex_logstore.storage import Store


@dataclass(slots=True)
class Telemetry:
    """The store's metrics, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    entries: Counter = field(init=False)
    received_bytes: Counter = field(init=False)
    query_seconds: Histogram = field(init=False)
    _held: Gauge = field(init=False)
    _held_bytes: Gauge = field(init=False)
    _file_bytes: Gauge = field(init=False)
    _streams: Gauge = field(init=False)
    _blocks: Gauge = field(init=False)

    def __post_init__(self) -> None:
        own, prefix = self.registry, "narthex_logstore"
        self.requests = Counter(
            f"{prefix}_requests", "Requests answered.", ("route", "code"), registry=own
        )
        self.entries = Counter(
            f"{prefix}_entries", "Entries received, by what became of them.", ("outcome",),
            registry=own,
        )  # fmt: skip
        self.received_bytes = Counter(
            f"{prefix}_received_bytes", "Bytes of pushes, as they came.", registry=own
        )
        self.query_seconds = Histogram(
            f"{prefix}_query_duration_seconds", "How long queries took.", registry=own
        )
        self._held = Gauge(f"{prefix}_held_entries", "Entries kept.", registry=own)
        self._held_bytes = Gauge(f"{prefix}_held_bytes", "Bytes of lines kept.", registry=own)
        self._file_bytes = Gauge(f"{prefix}_file_bytes", "Bytes used on disk.", registry=own)
        self._streams = Gauge(f"{prefix}_streams", "Streams known.", registry=own)
        self._blocks = Gauge(f"{prefix}_blocks", "Blocks kept.", registry=own)

    def measure(self, store: Store) -> None:
        """Read the gauges."""
        with store.snapshot() as view:
            blocks, entries, raw_bytes = view.totals()
        self._blocks.set(blocks)
        self._held.set(entries)
        self._held_bytes.set(raw_bytes)
        self._file_bytes.set(store.size_bytes())
        self._streams.set(len(store.streams()))
