"""Sessions of people are counted, whoever keeps the list."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import logins
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.sources.utmp import layout, parse

SHAPE = layout("x86_64")


def record(kind: int, pid: int, user: bytes, at: int = 1_764_000_000) -> bytes:
    return SHAPE.pack(kind, pid, b"pts/0", b"ts/0", user, b"192.0.2.7", 0, at, 0)


def utmp(tree: Path, data: bytes) -> None:
    path = tree / "root/run/utmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_sessions_of_people_are_counted_by_user(measure: Callable[..., Any]) -> None:
    assert measure(logins.collect) == {
        "narthex_logged_in_users": 2,
        'narthex_user_sessions{user="alice"}': 2,
    }


def test_a_session_that_comes_and_goes_is_seen(make_node: Callable[..., Node], tree: Path) -> None:
    node = make_node(tree)
    session = tree / "root/run/systemd/sessions/42"
    session.write_text(
        "USER=b\xf6b \u202e\nSTATE=active\nCLASS=user\n", encoding="latin-1", errors="replace"
    )
    found = {each.values: each.value for each in logins.collect.collect(node)}  # type: ignore[union-attr]  # Samples
    assert found[()] == 3
    session.unlink()
    assert next(iter(logins.collect.collect(node))).value == 2  # type: ignore[union-attr]


def test_without_logind_utmp_tells_of_sessions_that_live(
    measure: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "proc/77").mkdir(parents=True)
    boot, shut = record(2, 77, b"reboot"), record(8, 77, b"")
    utmp(
        tmp_path,
        boot
        + record(7, 77, b"root")
        + record(7, 77, b'a"\n\xff' + b"x" * 28)
        + record(7, 78, b"gone")
        + shut
        + b"torn",
    )
    found = measure(logins.collect, tmp_path)
    assert found["narthex_logged_in_users"] == 2
    assert found['narthex_user_sessions{user="root"}'] == 1
    assert 'narthex_user_sessions{user="a\\"\ufffd\ufffd' + "x" * 28 + '"}' in found


def test_users_are_bounded(make_node: Callable[..., Node], tmp_path: Path) -> None:
    (tmp_path / "proc/77").mkdir(parents=True)
    utmp(tmp_path, b"".join(record(7, 77, b"u%d" % number) for number in range(60)))
    node = make_node(tmp_path)
    samples = list(logins.collect.collect(node))
    assert (len(samples), samples[0].value) == (51, 60)  # type: ignore[union-attr]
    assert node.cut == {logins.LIMIT}


def test_a_machine_that_keeps_no_list_says_so(measure: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(NoData, match="neither logind nor utmp"):
        measure(logins.collect, tmp_path)


def test_records_are_laid_out_as_the_c_library_has_them(tmp_path: Path) -> None:
    path, shape = tmp_path / "utmp", layout()
    at = 1_764_000_000
    path.write_bytes(shape.pack(7, 1, b"pts/3", b"ts/3", b"alice", b"192.0.2.7", 9, at, 0))
    told = subprocess.run(
        ["who", "--users", str(path)],
        capture_output=True,
        check=True,
        text=True,
        env={"LC_ALL": "C", "TZ": "UTC"},
    )
    (found,) = parse(path.read_bytes())
    assert (found.user, found.kind, found.at) == ("alice", 7, at)
    assert told.stdout.split()[:2] == ["alice", "pts/3"]
    assert "192.0.2.7" in told.stdout
    assert "Nov 24 16:00" in told.stdout
    assert (layout("x86_64").size, layout("aarch64").size) == (384, 400)
