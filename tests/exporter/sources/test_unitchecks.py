"""systemd's own checks, which need no systemd that runs."""

import shutil
import threading
from pathlib import Path

import pytest

from narthex_exporter.actor.runner import Runner
from narthex_exporter.actor.systemd import SystemdCaller
from narthex_exporter.contract.steps import Outcome, RunProgram
from narthex_exporter.sources import unitchecks

RUNNER = Runner(start_ticks=lambda _pid: None, dbus=SystemdCaller())
UNIT = {"a.service": "[Service]\nExecStart=/bin/true\n"}


@pytest.fixture(autouse=True)
def _needs_systemd_analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")


def test_a_calendar_expression_is_told_with_its_next_times() -> None:
    found = unitchecks.calendar(RUNNER.read, "Mon..Fri 02:30", times=5)
    assert found.normalized == "Mon..Fri *-*-* 02:30:00"
    assert len(found.elapses) == 5
    assert all(" 02:30:00 " in one for one in found.elapses)


@pytest.mark.parametrize("text", ["often", "--help", "", "25:00"])
def test_what_is_no_calendar_expression_is_told_why(text: str) -> None:
    found = unitchecks.calendar(RUNNER.read, text, times=5)
    assert found.problem
    assert found.elapses == ()


def test_a_time_that_has_passed_elapses_never() -> None:
    assert unitchecks.calendar(RUNNER.read, "2001-01-01", times=5).elapses == ()


def test_a_unit_without_mistakes_gives_no_complaints() -> None:
    assert unitchecks.verify(RUNNER.read, "a.service", UNIT) == ()


def test_a_mistake_in_a_drop_in_is_told_by_its_place_and_the_copy_removed() -> None:
    asked: list[Path] = []

    def run(step: RunProgram) -> Outcome:
        asked.append(Path(step.argv[-1]))
        return RUNNER.execute(step, timeout_seconds=20, cancelled=threading.Event()).outcome

    files = {**UNIT, "a.service.d/x.conf": "[Service]\nMemoryMax=banana\n"}
    (line,) = unitchecks.verify(run, "a.service", files)
    assert line.startswith("a.service.d/x.conf:2: Invalid memory limit 'banana'")
    assert not asked[0].parent.exists()
