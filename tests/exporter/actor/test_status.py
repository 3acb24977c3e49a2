"""What the actor accepted and refused is counted from its audit, and told without a ticket."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actor.conftest import CLUSTER, NODE, Enrolled, Sleeper, running

from narthex_exporter.actor.audit import Audit
from narthex_exporter.actor.tally import Tally
from rig import until


def told(enrolled: Enrolled) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(enrolled.config.status_file.read_text())
    return found


def test_it_tells_runs_refusals_and_rows_and_keeps_them_over_restarts(
    enrolled: Enrolled, sleeper: Sleeper
) -> None:
    with running(enrolled) as rig:
        rig.client.run("process.renice", **sleeper.named, nice=7)
        rig.client.raw("GET", "/api/v1/manifest", headers={"Narthex-Ticket": "x"})
        until(lambda: told(enrolled)["requests_refused"] == {"malformed": 1})
        assert told(enrolled)["runs_accepted"] == {"process.renice": 1}
        assert told(enrolled)["running"] is True
        assert enrolled.config.status_file.stat().st_mode & 0o777 == 0o644
    assert told(enrolled)["running"] is False
    with running(enrolled) as rig:
        assert told(enrolled)["runs_accepted"] == {"process.renice": 1}
        assert told(enrolled)["requests_refused"] == {"malformed": 1}
        rig.client.run("process.renice", **sleeper.named, nice=8)
        until(lambda: told(enrolled)["runs_accepted"] == {"process.renice": 2})
        assert told(enrolled)["mode"] == "manage"
        before = told(enrolled)["policy_sha256"]
        enrolled.write_policy("version: 1\nmode: read-only\n")
        rig.actor.reload()
        until(lambda: told(enrolled)["mode"] == "read-only")
        assert told(enrolled)["policy_sha256"] != before
        until(lambda: told(enrolled)["audit_seq"] == rig.audit_rows[-1]["seq"])


def accept(audit: Audit, count: int, *, node: str = NODE, act: str = "a.b") -> None:
    for _ in range(count):
        audit.append("run.accepted", iss=CLUSTER, aud=f"node:{node}", act=act)


def tally(folder: Path) -> Tally:
    return Tally(path=folder / "sums.json", cluster=CLUSTER, node=NODE, actions=frozenset({"a.b"}))


@pytest.mark.parametrize("damage", ["none", "lost", "nonsense", "another node's"])
def test_sums_that_were_lost_are_counted_anew(tmp_path: Path, damage: str) -> None:
    with contextlib.closing(Audit(tmp_path / "audit.jsonl", file_bytes=2000)) as audit:
        accept(audit, 20)
        tally(tmp_path).catch_up(audit)
        accept(audit, 3)
        accept(audit, 2, node="n-other")
        accept(audit, 1, act="x.y")
        path = tmp_path / "sums.json"
        if damage == "lost":
            path.unlink()
        elif damage == "nonsense":
            path.write_text("{")
        elif damage == "another node's":
            path.write_text(json.dumps(json.loads(path.read_text()) | {"node": "x", "seq": 0}))
        later = tally(tmp_path)
        later.catch_up(audit)
        assert later.sums().runs == {"a.b": 23, "other": 1}
        assert later.sums().seq == audit.head.seq == 26


def test_what_went_by_rotation_stays_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with contextlib.closing(Audit(path, file_bytes=2000, kept_files=2)) as audit:
        for _ in range(10):
            accept(audit, 5)
            one = tally(tmp_path)
            one.catch_up(audit)
        assert one.sums().runs == {"a.b": 50}
        assert audit.after(0, limit=500, most_bytes=1 << 20).first > 1


def test_reasons_are_few_however_many_there_are(tmp_path: Path) -> None:
    with contextlib.closing(Audit(tmp_path / "audit.jsonl")) as audit:
        for number in range(100):
            audit.append("request.refused", reason=f"r{number}", left_out_before=2)
        audit.append("request.refused", reason="a\nb")
        one = tally(tmp_path)
        one.catch_up(audit)
    refused = one.sums().refused
    assert len(refused) <= 66
    assert sum(refused.values()) == 301
    assert refused["not-written-down"] == 200


def test_a_folder_that_cannot_be_written_stops_no_action(
    enrolled: Enrolled, sleeper: Sleeper, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled.config.status_file.mkdir(parents=True)
    with running(enrolled) as rig:
        assert rig.client.run("process.renice", **sleeper.named, nice=7)["state"] == "succeeded"
    assert "status.unwritten" in {record.message for record in caplog.records}
