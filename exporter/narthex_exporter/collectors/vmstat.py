"""Report paging, swapping and out-of-memory kills."""

import re
from collections.abc import Callable, Iterator
from functools import cache

from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    Metric,
    Node,
    Sample,
    collector,
    pattern_option,
)
from narthex_exporter.sources.fields import Fields

FIELD = Family("node_vmstat_{field}", Kind.UNTYPED, "/proc/vmstat information field {field}.")
FIELDS = pattern_option(
    "fields", "^(oom_kill|pgpg|pswp|pg.*fault).*", "Fields of /proc/vmstat to report."
)


@collector(name="vmstat", metrics=(FIELD,), options=(FIELDS,))
def collect(node: Node) -> Iterator[Sample]:
    """Report paging, swapping and out-of-memory kills."""
    choose = _chooser(node.setting(FIELDS))
    for metric, number in node.source(_Vmstat).pick(node.proc.text("vmstat"), choose):
        yield metric.at(int(number))


class _Vmstat(Fields[Metric]):
    """Where the wanted fields are in /proc/vmstat."""


@cache
def _chooser(wanted: re.Pattern[str]) -> Callable[[str], Metric | None]:
    return lambda name: FIELD.named(field=name) if wanted.search(name) else None
