"""Each keeper of the clock says whether it is right."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import timesync
from narthex_exporter.sources.place import Sources
from narthex_exporter.sources.programs import Done, MissingError
from narthex_exporter.sources.timesync import (
    Keeper,
    Timesync,
    kernel_synchronized,
    parse_chronyc,
    parse_ntpq,
)

# As chronyd 4.3 answers.
TRACKING = (
    "C6336407,198.51.100.7,3,1764000000.435340607,-0.000012500,0.000031000,0.000040000,"
    "-3.250,0.010,0.120,0.012500000,0.000700000,64.2,Normal\n"
)
LOST = (
    "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,"
    "1.000000000,1.000000000,0.0,Not synchronised\n"
)
NTP = "leap=00, stratum=2, offset=-1.500\n"
NTPSEC_LOST = "leap=3, stratum=16,\noffset=0.0\n"
STATE, LAST, OFFSET = (
    "narthex_time_synchronized",
    "narthex_time_last_synchronized_timestamp_seconds",
    "narthex_time_offset_seconds",
)


def sources(root: Path, *, kernel: bool = True, **programs: str) -> Sources:
    def run(argv: tuple[str, ...], **_: float) -> Done:
        if argv[0] not in programs:
            raise MissingError(argv[0])
        text = programs[argv[0]]
        return Done(code=0 if text else 1, output=text.encode(), error="")

    return Sources(known={Timesync: Timesync(root=root, run=run, kernel=lambda: kernel)})


def test_timesyncd_tells_when_it_was_told_the_time(
    measure: Callable[..., Any], tree: Path
) -> None:
    root = tree / "root"
    os.utime(root / "run/systemd/timesync/synchronized", (1.7e9, 1.7e9))
    assert measure(timesync.collect, tree, sources=sources(root)) == {
        STATE + '{source="kernel"}': 1,
        STATE + '{source="systemd-timesyncd"}': 1,
        LAST + '{source="systemd-timesyncd"}': 1.7e9,
    }
    (root / "run/systemd/timesync/synchronized").unlink()
    found = measure(timesync.collect, tree, sources=sources(root, kernel=False))
    assert set(found.values()) == {0}


def test_chrony_and_ntpd_tell_state_and_offset(
    measure: Callable[..., Any], tmp_path: Path
) -> None:
    found = measure(
        timesync.collect, tmp_path, sources=sources(tmp_path, chronyc=TRACKING, ntpq=NTP)
    )
    assert found == {
        STATE + '{source="kernel"}': 1,
        STATE + '{source="chrony"}': 1,
        LAST + '{source="chrony"}': 1764000000.4353406,
        OFFSET + '{source="chrony"}': pytest.approx(1.25e-5),
        STATE + '{source="ntpd"}': 1,
        OFFSET + '{source="ntpd"}': 0.0015,
    }


@pytest.mark.parametrize("text", ["", "506 Cannot talk to daemon\n", "a," * 20, "\ufffd"])
def test_a_daemon_that_does_not_answer_keeps_no_clock(tmp_path: Path, text: str) -> None:
    source = sources(tmp_path, chronyc=text, ntpq=text).known[Timesync]
    assert list(source.keepers())[1:] == [
        Keeper(source="chrony", synchronized=False),
        Keeper(source="ntpd", synchronized=False),
    ]


def test_a_daemon_without_a_server_is_not_synchronized() -> None:
    assert parse_chronyc(LOST) == Keeper(source="chrony", synchronized=False)
    assert parse_ntpq(NTPSEC_LOST) == Keeper(source="ntpd", synchronized=False)
    assert not parse_ntpq("leap=11, stratum=16").synchronized


def test_this_machines_kernel_has_an_opinion() -> None:
    assert kernel_synchronized() in {True, False}
