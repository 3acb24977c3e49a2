"""Report how many processes and threads there are, by state."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import Node, Sample, collector, gauge
from narthex_exporter.sources.tasks import count

THREADS = gauge("node_processes_threads", "Allocated threads in system")
MAX_THREADS = gauge("node_processes_max_threads", "Limit of threads in the system")
THREADS_STATE = gauge(
    "node_processes_threads_state", "Number of threads in each state.", ("thread_state",)
)
STATE = gauge("node_processes_state", "Number of processes in each state.", ("state",))
PIDS = gauge("node_processes_pids", "Number of PIDs")
MAX_PROCESSES = gauge("node_processes_max_processes", "Number of max PIDs limit")


@collector(
    name="processes",
    metrics=(THREADS, MAX_THREADS, THREADS_STATE, STATE, PIDS, MAX_PROCESSES),
    every_seconds=30,
    limit_seconds=10,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many processes and threads there are, by state."""
    found = count(node.proc.root)
    yield PIDS.at(found.processes)
    yield THREADS.at(found.threads)
    for state, number in sorted(found.states.items()):
        yield STATE.at(number, state)
    for state, number in sorted(found.thread_states.items()):
        yield THREADS_STATE.at(number, state)
    yield MAX_THREADS.at(int(node.proc.bytes("sys/kernel/threads-max")))
    yield MAX_PROCESSES.at(int(node.proc.bytes("sys/kernel/pid_max")))
