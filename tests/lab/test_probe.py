"""The shipped probe unit, hardened as it is, finds what the exporter may not see."""

import sys
import time
from pathlib import Path

import pytest
from tests.lab.conftest import UNITS, Machine

pytestmark = pytest.mark.systemd

DROP_IN = f"""\
[Service]
ExecStart=
ExecStart={sys.executable} -Im narthex_exporter probe --all --no-collector.smartmon
PrivateTmp=no
"""


def install(machine: Machine) -> None:
    # The machine is every test's: where it is enrolled already it must stay so.
    if not (machine.root / "var/lib/narthex/node.json").exists():
        machine.write("/var/lib/narthex/node.json", "{}")
    machine.write("/etc/shadow", "root:*:1:::::::\nopen::1:::::::\n")
    with (machine.root / "etc/passwd").open("a") as users:
        users.write("open:x:1234:1234::/:/bin/sh\n")
    for unit in ("narthex-probe.service", "narthex-probe.timer"):
        machine.write(f"/etc/systemd/system/{unit}", (UNITS / unit).read_text())
    machine.write("/etc/systemd/system/narthex-probe.service.d/checkout.conf", DROP_IN)
    machine.run("systemctl", "daemon-reload")


def test_the_probe_unit_leaves_what_it_found_for_everybody_to_read(machine: Machine) -> None:
    install(machine)
    machine.run("systemctl", "start", "narthex-probe.service")
    assert machine.show("narthex-probe.service", "Result") == "success"
    folder = Path(machine.root) / "run/narthex-probe"
    assert folder.stat().st_mode & 0o777 == 0o755
    file = folder / "passwords.prom"
    assert file.stat().st_mode & 0o777 == 0o644
    assert "narthex_users_without_password 1" in file.read_text()
    assert "narthex_firewall_enabled" in (folder / "firewall.prom").read_text()


def test_its_timer_starts_it(machine: Machine) -> None:
    install(machine)
    file = Path(machine.root) / "run/narthex-probe/passwords.prom"
    file.unlink(missing_ok=True)
    machine.write(
        "/etc/systemd/system/narthex-probe.timer.d/soon.conf",
        "[Timer]\nOnActiveSec=\nOnActiveSec=1\nRandomizedDelaySec=0\nAccuracySec=100ms\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "narthex-probe.timer")
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    machine.run("systemctl", "stop", "narthex-probe.timer")
