"""Report paging, swapping and out-of-memory kills."""

import re
from collections.abc import Iterator
from functools import lru_cache

from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    Metric,
    Node,
    Sample,
    collector,
    pattern_option,
)

FIELD = Family("node_vmstat_{field}", Kind.UNTYPED, "/proc/vmstat information field {field}.")
FIELDS = pattern_option(
    "fields", "^(oom_kill|pgpg|pswp|pg.*fault).*", "Fields of /proc/vmstat to report."
)


@collector(name="vmstat", metrics=(FIELD,), options=(FIELDS,))
def collect(node: Node) -> Iterator[Sample]:
    """Report paging, swapping and out-of-memory kills."""
    wanted = node.setting(FIELDS)
    for name, number in node.proc.vmstat().items():
        metric = _metric(name, wanted)
        if metric is not None:
            yield metric.at(number)


@lru_cache(maxsize=1024)
def _metric(name: str, wanted: re.Pattern[str]) -> Metric | None:
    """Choose a field once; there are two hundred, and they change with the kernel only."""
    return FIELD.named(field=name) if wanted.search(name) else None
