"""Write the reference of metrics from their declarations."""

from collections.abc import Iterator, Sequence
from typing import Final

from narthex_exporter import renewal, selfmetrics
from narthex_exporter.collectors import COLLECTORS, scrape
from narthex_exporter.collectors.spec import Collector, Family, Metric
from narthex_exporter.logs import metrics as shipper

_PREFACE: Final = """\
# Metrics of a node

Written by `script/generate` from the declarations in
`exporter/narthex_exporter/collectors/`; do not edit.

Names that start with `node_` have node_exporter's own meaning, type and labels.
A name with `{…}` stands for as many metrics as the kernel has fields.

Each collector is turned on or off with `--collector.<name>` or `--no-collector.<name>`,
and asked for alone with `?collect[]=<name>`.
"""
_EXPORTER: Final = (*selfmetrics.METRICS, *renewal.METRICS)


def is_declared(name: str) -> bool:
    """Tell whether the exporter declares a metric of this name."""
    own = {metric.name for metric in (*scrape.METRICS, *_EXPORTER, *shipper.METRICS)}
    return name in own or any(collector.declares(name) for collector in COLLECTORS)


def markdown() -> str:
    """Give ``docs/reference/metrics.md``."""
    lines = [_PREFACE]
    for collector in sorted(COLLECTORS, key=lambda each: each.name):
        lines += _collector(collector)
    lines += ["## About the scrape", "", *_table(scrape.METRICS)]
    lines += ["## About the exporter", "", *_table(_EXPORTER)]
    lines += ["## About the log shipper", "", *_table(shipper.METRICS)]
    return "\n".join(lines).rstrip() + "\n"


def _collector(collector: Collector) -> Iterator[str]:
    state = "on" if collector.enabled else "off"
    how = [f"By default {state}."]
    if collector.interval is not None:
        how.append("Has a schedule of its own.")
    if collector.privileged:
        how.append("Needs root: where the exporter is not, `narthex probe` looks for it.")
    yield from (f"## {collector.name}", "", f"{collector.summary} {' '.join(how)}", "")
    for option in collector.options:
        yield f"- `{option.flag(collector.name)}`: {option.help}"
        yield f"  Default: `{option.default}`."
    if collector.options:
        yield ""
    yield from _table(collector.metrics)


def _table(metrics: Sequence[Metric | Family]) -> Iterator[str]:
    yield from ("| metric | type | labels | meaning |", "|---|---|---|---|")
    for metric in sorted(metrics, key=lambda each: each.name):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
    yield ""
