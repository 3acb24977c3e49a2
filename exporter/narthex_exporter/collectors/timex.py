"""Report how well the clock is kept."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    NoData,
    Node,
    Sample,
    collector,
    counter,
    gauge,
)
from narthex_exporter.sources.clock import Clock


def _gauge(name: str, help: str) -> Metric:  # noqa: A002
    return gauge(f"node_timex_{name}", help)


def _counter(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"node_timex_{name}_total", f"Pulse per second count of {help}.")


# The field of Timekeeping, and what it becomes.
FIELDS: Final = {
    "synchronized": _gauge(
        "sync_status", "Is clock synchronized to a reliable server (1 = yes, 0 = no)."
    ),
    "offset_seconds": _gauge(
        "offset_seconds", "Time offset in between local system and reference clock."
    ),
    "frequency_ratio": _gauge("frequency_adjustment_ratio", "Local clock frequency adjustment."),
    "max_error_seconds": _gauge("maxerror_seconds", "Maximum error in seconds."),
    "estimated_error_seconds": _gauge("estimated_error_seconds", "Estimated error in seconds."),
    "status": _gauge("status", "Value of the status array bits."),
    "constant": _gauge("loop_time_constant", "Phase-locked loop time constant."),
    "tick_seconds": _gauge("tick_seconds", "Seconds between clock ticks."),
    "pps_frequency_hertz": _gauge("pps_frequency_hertz", "Pulse per second frequency."),
    "pps_jitter_seconds": _gauge("pps_jitter_seconds", "Pulse per second jitter."),
    "pps_shift_seconds": _gauge("pps_shift_seconds", "Pulse per second interval duration."),
    "pps_stability_hertz": _gauge(
        "pps_stability_hertz", "Pulse per second stability, average of recent frequency changes."
    ),
    "pps_jitter_count": _counter("pps_jitter", "jitter limit exceeded events"),
    "pps_calibration_count": _counter("pps_calibration", "calibration intervals"),
    "pps_error_count": _counter("pps_error", "calibration errors"),
    "pps_stability_count": _counter("pps_stability_exceeded", "stability limit exceeded events"),
    "tai_seconds": _gauge("tai_offset_seconds", "International Atomic Time (TAI) offset."),
}


@collector(name="timex", metrics=tuple(FIELDS.values()))
def collect(node: Node) -> Iterator[Sample]:
    """Report how well the clock is kept."""
    try:
        found = node.source(Clock).read()
    except PermissionError as error:
        raise NoData("adjtimex(2) is forbidden here") from error
    for name, metric in FIELDS.items():
        value = getattr(found, name)
        yield metric.at(int(value) if isinstance(value, bool) else value)
