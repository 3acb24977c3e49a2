"""Run hundreds of simulated nodes in a few processes, each as real as one on its own machine.

Each node has an id, a certificate, an authority, a policy, nonces, an audit and a store of runs
of its own, a TLS front and an actor behind a Unix socket. Only the machine is shared: it is
this one. What is asked of them is the whole catalogue, and ``fleet.noop``, which does nothing.

    with many_nodes(folder, signer, count=200) as nodes: ...
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from narthex_exporter.actor.node import CATALOGUE as WHOLE
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import (
    Catalogue,
    Danger,
    Params,
    QueryParams,
    Result,
    action,
    query,
)
from narthex_exporter.contract.steps import Note
from narthex_operator.clients.node import NodeRef
from narthex_operator.security.signer_client import SignerClient
from realnode import RealNode

PROCESSES = 4
_START_SECONDS = 120


class NoopParams(QueryParams):
    """Parameters of fleet.noop: what it is to say."""

    word: str = "done"


class NoopResult(Result):
    """What fleet.noop was told."""

    word: str


class NoopAction(Params):
    """Parameters of the action fleet.noop: none."""

    @property
    @override
    def resource(self) -> str:
        return "fleet/noop"


@query(name="fleet.noop", title="Nothing")
def noop(params: NoopParams, _facts: Facts) -> NoopResult:
    """Do nothing, and say so."""
    return NoopResult(word=params.word)


@action(name="fleet.noop", title="Nothing", danger=Danger.SAFE)
def noop_action(_params: NoopAction, _facts: Facts) -> Any:
    """Do nothing, in a run."""
    yield Note(text="nothing is done")


CATALOGUE = Catalogue(
    actions={**WHOLE.actions, noop_action.name: noop_action},
    queries={**WHOLE.queries, noop.name: noop},
)


@dataclass(frozen=True)
class ManyNodes:
    """Simulated nodes that listen. ``processes`` holds them, node i in process i % PROCESSES."""

    nodes: Sequence[RealNode]
    processes: Sequence["subprocess.Popen[str]"]

    @property
    def refs(self) -> list[NodeRef]:
        return [NodeRef(id=one.id, name=one.name, address=one.address) for one in self.nodes]


@contextlib.contextmanager
def many_nodes(
    folder: Path, signer: SignerClient, *, count: int, processes: int = PROCESSES
) -> Iterator[ManyNodes]:
    """Enrol nodes and let them listen, in processes of their own."""
    nodes = [
        RealNode(folder / f"n{i:04}", signer, id=f"n{i:04}", name=f"sim-{i:04}")
        for i in range(count)
    ]
    shares = [nodes[first::processes] for first in range(min(processes, count))]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(_process([one.folder for one in share])) for share in shares
        ]
        for process, share in zip(started, shares, strict=True):
            for node, port in zip(share, _ports(process), strict=True):
                node.address = f"127.0.0.1:{port}"
        yield ManyNodes(nodes, started)


@contextlib.contextmanager
def _process(folders: Sequence[Path]) -> Iterator["subprocess.Popen[str]"]:
    """Start a process for some nodes; it ends when its input does, so with us at the latest."""
    with subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([str(folder) for folder in folders]) + "\n")
            process.stdin.flush()
            yield process
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(30)
            finally:
                process.kill()


def _ports(process: "subprocess.Popen[str]") -> list[int]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the process of the simulated nodes ended with {process.wait(5)}"
    found: list[int] = json.loads(line)
    return found


class _Known:
    """As much of a signer as a node knows: its cluster."""

    def __init__(self, folder: Path) -> None:
        self.cluster = json.loads((folder / "node.json").read_text())["cluster"]

    def ca(self) -> "_Known":
        return self


def _reopened(folder: Path) -> RealNode:
    """Take up a node that another process enrolled."""
    node: RealNode = RealNode.__new__(RealNode)
    node.folder, node.signer = folder, _Known(folder)  # type: ignore[assignment]
    node.pki = RealNode.files(folder)
    return node


def main() -> None:
    """Serve the nodes whose folders the first line of the input names, until it ends."""
    folders = [Path(name) for name in json.loads(sys.stdin.readline())]
    with contextlib.ExitStack() as stack:
        ports = []
        for folder in folders:
            node = _reopened(folder)
            stack.enter_context(node.actor(CATALOGUE))
            stack.enter_context(node.front())
            ports.append(int(node.address.rpartition(":")[2]))
        print(json.dumps(ports), flush=True)  # noqa: T201 - to whom it was started by
        sys.stdin.read()


if __name__ == "__main__":
    main()
