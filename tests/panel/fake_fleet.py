"""Figures in memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tests.panel.world import World

from narthex_operator.services.access import Actor
from narthex_operator.services.views import (
    Chart,
    FleetView,
    NodeState,
    NodeStatus,
    PartState,
    Series,
)


@dataclass
class FakeFleet:
    world: World

    def overview(self, actor: Actor) -> FleetView:
        actor.require("node:read")
        self.world.reads += 1
        found = {one.id: one for one in self.world.nodes()}
        rows = []
        for index, (_, state, cpu, memory, disk, load, cpus, firing, severity) in enumerate(
            self.world.table if found else ()
        ):
            one = found[f"{index + 1:016x}"]
            known = cpu is not None and not self.world.failing()
            age = 754.0 if state is NodeState.STALE else 3.0
            rows.append(
                NodeStatus(
                    node=one,
                    state=NodeState.UP if one.id in self.world.approved else state,
                    cpu_ratio=cpu + self.world.cpu if known and cpu is not None else None,
                    memory_ratio=memory if known else None,
                    disk_ratio=disk if known else None,
                    disk_mountpoint=self.world.text or "/var/lib/postgresql",
                    load1=load if known else None,
                    cpus=cpus,
                    uptime_seconds=3_456_789.0 if known else None,
                    alerts_firing=firing,
                    alerts_severity=severity,
                    sampled_at=self.world.time - timedelta(seconds=age) if known else None,
                    age_seconds=age if known else None,
                )
            )
        return FleetView(
            nodes=tuple(rows),
            generated_at=self.world.time,
            problem="Prometheus does not answer at 127.0.0.1:19103: connection refused"
            if self.world.failing()
            else "",
        )

    def charts(self, actor: Actor, ref: str, *, minutes: int) -> Sequence[Chart]:
        self.world.find(ref)
        end = self.world.time.timestamp()
        count = 120
        times = tuple(end - (count - i) * minutes * 60 / count for i in range(count))

        def wave(base: float, amplitude: float, period: float) -> tuple[float | None, ...]:
            return tuple(
                None
                if 60 < i < 66
                else max(0.0, base + amplitude * math.sin(i / period) + amplitude * (i % 7) / 14)
                for i in range(count)
            )

        if self.world.failing():
            return [
                Chart(
                    name=name,
                    unit="ratio",
                    times=(),
                    series=(),
                    query="up",
                    problem="Prometheus does not answer",
                )
                for name in ("cpu", "memory", "disk", "network", "load")
            ]
        return [
            Chart(
                name="cpu",
                unit="ratio",
                times=times,
                query='1 - avg(rate(node_cpu_seconds_total{mode="idle"}[2m]))',
                series=(
                    Series(label="busy", values=wave(0.3, 0.15, 9)),
                    Series(label="iowait", values=wave(0.03, 0.02, 5)),
                ),
            ),
            Chart(
                name="memory",
                unit="ratio",
                times=times,
                query="1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
                series=(Series(label="used", values=wave(0.62, 0.02, 21)),),
            ),
            Chart(
                name="disk",
                unit="ratio",
                times=times,
                query="1 - node_filesystem_avail_bytes / node_filesystem_size_bytes",
                series=(
                    Series(label="/", values=wave(0.41, 0.0, 9)),
                    Series(label="/var/lib/postgresql", values=wave(0.85, 0.01, 30)),
                ),
            ),
            Chart(
                name="network",
                unit="bytes_per_second",
                times=times,
                query="rate(node_network_receive_bytes_total[2m])",
                series=(
                    Series(label="received", values=wave(3_400_000, 900_000, 8)),
                    Series(label="sent", values=wave(1_100_000, 400_000, 6)),
                ),
            ),
            Chart(
                name="load",
                unit="load",
                times=times,
                query="node_load1",
                series=(
                    Series(label="1 min", values=wave(1.4, 0.8, 7)),
                    Series(label="5 min", values=wave(1.2, 0.4, 14)),
                    Series(label="15 min", values=wave(1.1, 0.2, 28)),
                ),
            ),
        ]

    def parts(self, actor: Actor) -> Sequence[PartState]:
        bad = self.world.failing()
        return [
            PartState(name="operator", ok=True, detail="0.1.0, running for 3 d"),
            PartState(name="signer", ok=True, detail="answers in 2 ms"),
            PartState(
                name="prometheus",
                ok=not bad,
                detail="connection refused" if bad else "2.42.0, 7 targets",
                hint="see log/prometheus.log" if bad else "",
            ),
            PartState(name="alertmanager", ok=True, detail="0.25.0"),
            PartState(name="logstore", ok=True, detail="412 MiB"),
        ]
