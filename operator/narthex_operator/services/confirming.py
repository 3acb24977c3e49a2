"""Confirm what could cut a node off, once it has been reached anew; else let it be brought back.

An established connection proves nothing: it survives a firewall's rule. So each look, and the
confirmation itself, opens a connection of its own.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from narthex_exporter.contract.wire import RunState
from narthex_operator.clients.node import NodeClient, NodeRef
from narthex_operator.clients.reach import can_connect
from narthex_operator.db import Database
from narthex_operator.db.models import Node, RunRow
from narthex_operator.errors import OperatorError
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.run_rows import asker_of, ref_of, requester_of
from narthex_operator.services.views import ProbeView

log = logging.getLogger(__name__)

SSH_PORT: Final = 22


@dataclass(slots=True, kw_only=True)
class Confirming:
    """Looks whether nodes can be reached, and confirms runs that wait for it."""

    database: Database
    audit: AuditLedger
    nodes: NodeClient
    now: Callable[[], datetime]
    ssh_port: int = SSH_PORT

    def ssh_open(self, node: NodeRef) -> bool:
        """Tell whether the node's SSH port takes a connection now."""
        return can_connect(_host(node), self.ssh_port) == ""

    def confirm(self, run_id: str) -> None:
        """Probe the node of a run that waits, and confirm the run if all is well."""
        with self.database.reading() as session:
            row = session.get_one(RunRow, run_id)
            node = ref_of(session.get_one(Node, row.node_id))
        if row.state != RunState.CONFIRMING:
            return
        probes = self._probe(node, ssh=row.ssh_open)
        if all(probe.ok for probe in probes):
            try:
                self.nodes.confirm_run(node, asker_of(row), run_id)
            except OperatorError as error:
                told = ProbeView(name="confirm", ok=False, detail=str(error), at=self.now())
                probes = (*probes, told)
        self._keep(run_id, probes)

    def _probe(self, node: NodeRef, *, ssh: bool) -> tuple[ProbeView, ...]:
        probes = [self._look("exporter", lambda: self._exporter_amiss(node))]
        if ssh:
            probes.append(
                self._look(f"ssh port {self.ssh_port}",
                           lambda: can_connect(_host(node), self.ssh_port))
            )  # fmt: skip
        return tuple(probes)

    def _look(self, name: str, amiss: Callable[[], str]) -> ProbeView:
        why = amiss()
        return ProbeView(name=name, ok=not why, detail=why, at=self.now())

    def _exporter_amiss(self, node: NodeRef) -> str:
        try:
            self.nodes.health(node)
        except OperatorError as error:
            return str(error)
        return ""

    def _keep(self, run_id: str, probes: Sequence[ProbeView]) -> None:
        """Keep what was found; the first confirmation and the first failure are audited."""
        ok = all(probe.ok for probe in probes)
        with self.database.session() as session:
            row = session.get_one(RunRow, run_id, with_for_update=True)
            if row.state != RunState.CONFIRMING:
                return
            news = row.probes is None or _all_ok(row.probes) is not ok
            row.probes = [probe.model_dump(mode="json") for probe in probes]
            if not news:
                return
            session.flush()
            self.audit.record(
                session,
                actor=requester_of(row),
                event="run.confirmed" if ok else "run.not-confirmed",
                node=row.node_id,
                node_name=row.node_name,
                resource=row.resource,
                run=run_id,
                details={"probes": {x.name: x.detail or "works" for x in probes}},
            )
        log.info("run.probed", extra={"run_id": run_id, "ok": ok})


def _all_ok(probes: Sequence[dict[str, Any]]) -> bool:
    return all(probe["ok"] for probe in probes)


def _host(node: NodeRef) -> str:
    return node.address.rpartition(":")[0].strip("[]")
