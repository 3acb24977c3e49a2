"""What firewall actions have ufw do, done by a real ufw in namespaces of its own."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actions.conftest import PretendedFacts, PretendedUnits
from tests.exporter.sources.namespaces import HOLD, exists

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.plans import Plan, make_plan
from narthex_exporter.contract.firewallfacts import FirewallSettings
from narthex_exporter.contract.steps import (
    Guard,
    Outcome,
    RemoveFile,
    RunProgram,
    WriteFile,
    for_run,
)
from narthex_exporter.sources.firewallrules import FirewallRules
from narthex_exporter.sources.reachability import Layout
from narthex_exporter.sources.smallfiles import SmallFiles

pytestmark = pytest.mark.skipif(
    not exists() or not Path("/usr/sbin/ufw").exists(),
    reason="needs root, unshare, nft and ufw: apt-get install ufw nftables",
)

RUN_ID = "019ab0c4-5f00-7000-8000-000000000001"
SHARE = Path("/usr/share/ufw")
RULES = ("before", "before6", "after", "after6", "user", "user6")
MOUNT = """\
mount --make-rprivate / && mount --bind "$1/etc/ufw" /etc/ufw &&
mount --bind "$1/etc/default/ufw" /etc/default/ufw && shift && exec "$@"
"""


@dataclass
class Box:
    """A network and a mount namespace with an /etc/ufw of its own, at ``root`` from here."""

    pid: int
    root: Path

    def run(self, *argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "-m", "--", *argv],
            input=stdin, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def load(self, steps: Any) -> None:
        for step in steps:
            ready = for_run(step, RUN_ID)
            if isinstance(ready, RunProgram):
                self.run(*ready.argv, stdin=ready.stdin)
            elif isinstance(ready, WriteFile):
                (self.root / ready.path.lstrip("/")).write_text(ready.content)
            assert not isinstance(ready, RemoveFile)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    for folder in ("etc/ufw/applications.d", "etc/default"):
        (tmp_path / folder).mkdir(parents=True)
    for name in RULES:
        found = next(SHARE.rglob(f"{name}.rules"))
        shutil.copy(found, tmp_path / f"etc/ufw/{name}.rules")
    shutil.copy(SHARE / "ufw.conf", tmp_path / "etc/ufw/ufw.conf")
    for name in ("before.init", "after.init"):
        (tmp_path / "etc/ufw" / name).write_text("#!/bin/sh\n")
    (tmp_path / "etc/ufw/sysctl.conf").write_text("")
    defaults = Path("/etc/default/ufw").read_text()
    (tmp_path / "etc/default/ufw").write_text(defaults)
    process = subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", MOUNT, "sh", str(tmp_path),
         sys.executable, "-Ic", f"print('ready', flush=True); {HOLD}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            one = Box(process.pid, tmp_path)
            one.run("ip", "link", "set", "lo", "up")
            yield one
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.fixture
def facts(box: Box) -> PretendedFacts:
    def run(step: RunProgram) -> Outcome:
        if step.argv[0] != "nft":
            return Outcome(code=127)
        return Outcome(code=0, output=box.run(*step.argv))

    files = SmallFiles(root=box.root)
    settings = FirewallSettings(always_allow=(("10.9.0.2/32", 19100),))
    return PretendedFacts(
        files=files,  # type: ignore[arg-type] # the real one
        units=PretendedUnits(why="systemd is not running"),
        firewall=FirewallRules(run=run, files=files, settings=lambda: settings, layout=Layout),
    )


def act(box: Box, facts: PretendedFacts, name: str, /, **params: Any) -> Plan:
    action = CATALOGUE[name]
    plan = make_plan(action, action.params.model_validate(params), facts)
    box.load(step for step in plan.steps if isinstance(step, RunProgram))
    return plan


def added(box: Box) -> list[str]:
    return [line for line in box.run("ufw", "show", "added").splitlines() if line[:4] == "ufw "]


def test_rules_go_through_ufw_and_come_back(box: Box, facts: PretendedFacts) -> None:
    began = time.monotonic()
    act(box, facts, "firewall.enable", backend="ufw")
    assert "Status: active" in box.run("ufw", "status")
    assert facts.firewall.look().manager == "ufw"
    act(box, facts, "firewall.open-port", port=80, comment="shop")
    act(box, facts, "firewall.allow-source", source="10.9.0.0/24", port=5432)
    act(box, facts, "firewall.limit", port=22)
    before = added(box)
    plan = act(box, facts, "firewall.deny-source", source="10.9.0.0/24", port=80)
    lines = added(box)
    # Who is always let in stands before what was just put first.
    assert lines[0].startswith("ufw allow from 10.9.0.2 to any port 19100 proto tcp")
    assert lines[1].startswith("ufw deny from 10.9.0.0/24 to any port 80 proto tcp")
    told = {
        (one.action, one.ports, one.source)
        for one in facts.firewall.look().rules
        if RUN_ID in one.comment
    }
    assert told >= {
        ("accept", "80", ""), ("accept", "5432", "10.9.0.0/24"), ("limit", "22", ""),
        ("drop", "80", "10.9.0.0/24"),
    }  # fmt: skip
    (guard,) = (step for step in plan.steps if isinstance(step, Guard))
    box.load(guard.revert)
    assert added(box) == before
    assert "10.9.0.0/24 tcp dport 80" not in box.run("nft", "list", "ruleset")
    act(box, facts, "firewall.close-port", port=80)
    assert not [line for line in added(box) if "port 80" in line]
    limited = next(one for one in facts.firewall.look().rules if one.action == "limit")
    act(box, facts, "firewall.remove-rule", rule=limited.comment.split()[1])
    assert not [line for line in added(box) if line.startswith("ufw limit")]
    act(box, facts, "firewall.set-default-policy", policy="accept")
    assert "allow (incoming)" in box.run("ufw", "status", "verbose")
    act(box, facts, "firewall.disable", backend="ufw")
    assert "Status: inactive" in box.run("ufw", "status")
    assert time.monotonic() - began < 120


def test_the_ports_that_ufw_keeps_are_known(box: Box, facts: PretendedFacts) -> None:
    act(box, facts, "firewall.enable", backend="ufw")
    act(box, facts, "firewall.allow-source", source="10.9.0.0/24", port=5432)
    act(box, facts, "firewall.limit", port=22)
    view = facts.firewall.look()
    assert view.blind == ""
    names = {one.owner for one in view.rules}
    assert names == {"ufw"}
