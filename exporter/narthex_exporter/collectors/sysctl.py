"""Report the kernel settings that one asks for."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    Node,
    Sample,
    collector,
    gauge,
    words_option,
)

VALUE = Family("node_sysctl_{name}", Kind.UNTYPED, "sysctl {name}")
INDEXED = Family("node_sysctl_{name}", Kind.UNTYPED, "sysctl {name}", ("index",))
INFO = gauge("node_sysctl_info", "sysctl info", ("name", "value", "index"))
INCLUDE = words_option(
    "include",
    "Settings with whole numbers to report, such as kernel.threads-max; those with several may"
    " name them: net.ipv4.tcp_rmem:min,default,max. Repeatable.",
)
INCLUDE_INFO = words_option(
    "include-info", "Settings with words to report as labels of node_sysctl_info. Repeatable."
)


@collector(
    name="sysctl",
    metrics=(VALUE, INDEXED, INFO),
    enabled=False,
    options=(INCLUDE, INCLUDE_INFO),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report the kernel settings that one asks for."""
    for each in node.setting(INCLUDE):
        name, _, keys = each.partition(":")
        numbers = [int(word) for word in _words(node, name)]
        if keys:
            yield from _mapped(name, numbers, keys.split(","))
        elif len(numbers) == 1:
            yield VALUE.named(name=name).at(numbers[0])
        else:
            metric = INDEXED.named(name=name)
            for index, number in enumerate(numbers):
                yield metric.at(number, str(index))
    for name in node.setting(INCLUDE_INFO):
        for index, word in enumerate(_words(node, name)):
            yield INFO.at(1, name, word, str(index))


def _words(node: Node, name: str) -> list[str]:
    # No dot is left, so no name leads out of /proc/sys.
    return node.proc.text(f"sys/{name.replace('.', '/')}").split()


def _mapped(name: str, numbers: list[int], keys: list[str]) -> Iterator[Sample]:
    if len(numbers) != len(keys):
        raise ValueError(f"sysctl {name} has {len(numbers)} numbers, and {len(keys)} names")
    for key, number in zip(keys, numbers, strict=True):
        yield VALUE.named(name=f"{name}_{key}").at(number)
