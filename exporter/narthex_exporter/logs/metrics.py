"""Declare what the log shipper tells of itself."""

from typing import Final

from narthex_exporter.collectors.spec import Metric, counter, gauge

READ_LINES: Final = counter(
    "narthex_logship_read_lines_total", "Lines read, by source.", ("source",)
)
SENT_ENTRIES: Final = counter("narthex_logship_sent_entries_total", "Entries that the store has.")
SENT_BYTES: Final = counter("narthex_logship_sent_bytes_total", "Bytes of pushes accepted.")
DROPPED: Final = counter(
    "narthex_logship_dropped_entries_total", "Entries lost, by reason.", ("reason",)
)
PUSH_FAILURES: Final = counter(
    "narthex_logship_push_failures_total", "Pushes refused, by status.", ("code",)
)
REPAIRED: Final = counter(
    "narthex_logship_repaired_entries_total", "Entries changed to be taken.", ("reason",)
)
DEAD_LETTERS: Final = counter(
    "narthex_logship_dead_letter_entries_total", "Entries set aside for good.", ("reason",)
)
REDACTIONS: Final = counter(
    "narthex_logship_redactions_total", "Secrets taken out, by rule.", ("rule",)
)
PART_FAILURES: Final = counter(
    "narthex_logship_part_failures_total", "Restarts of a part after a mistake.", ("part",)
)
TRUNCATIONS: Final = counter("narthex_logship_truncations_total", "Files that were cut short.")
ROTATIONS: Final = counter("narthex_logship_rotations_total", "Files that were replaced.")
CLOCK_STEPS: Final = counter("narthex_logship_clock_steps_total", "Entries from the future.")
JOURNAL_RESTARTS: Final = counter(
    "narthex_logship_journal_restarts_total", "Times journalctl ended."
)
QUEUE_ENTRIES: Final = gauge("narthex_logship_queue_entries", "Entries that wait.")
QUEUE_BYTES: Final = gauge("narthex_logship_queue_bytes", "Bytes that wait.")
QUEUE_DEGRADED: Final = gauge(
    "narthex_logship_queue_degraded", "1 while the queue cannot be written."
)
OLDEST_ENTRY: Final = gauge(
    "narthex_logship_oldest_entry_timestamp_seconds",
    "Time of the oldest entry that waits; 0 while none does.",
)
LAST_PUSH: Final = gauge(
    "narthex_logship_last_push_timestamp_seconds", "When the store last took a push."
)
METRICS: Final[tuple[Metric, ...]] = (
    READ_LINES,
    SENT_ENTRIES,
    SENT_BYTES,
    DROPPED,
    PUSH_FAILURES,
    REPAIRED,
    DEAD_LETTERS,
    REDACTIONS,
    PART_FAILURES,
    TRUNCATIONS,
    ROTATIONS,
    CLOCK_STEPS,
    JOURNAL_RESTARTS,
    QUEUE_ENTRIES,
    QUEUE_BYTES,
    QUEUE_DEGRADED,
    OLDEST_ENTRY,
    LAST_PUSH,
)
