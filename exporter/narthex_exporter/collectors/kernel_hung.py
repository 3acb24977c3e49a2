"""Report how many tasks the kernel found hung."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, counter

TASKS = counter(
    "node_kernel_hung_tasks_total",
    "Total number of tasks that have been detected as hung since the system booted.",
)


@collector(name="kernel_hung", metrics=(TASKS,))
def collect(node: Node) -> Iterator[Sample]:
    """Report how many tasks the kernel found hung."""
    try:
        count = int(node.proc.bytes("sys/kernel/hung_task_detect_count"))
    except FileNotFoundError as error:
        raise NoData("this kernel does not count hung tasks (Linux 6.13)") from error
    yield TASKS.at(count)
