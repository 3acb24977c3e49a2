"""Report paging, swapping and out-of-memory kills."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    Family,
    Kind,
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
        if wanted.search(name):
            yield FIELD.named(field=name).at(number)
