import os
from collections.abc import Callable
from pathlib import Path

import pytest

from narthex_exporter.collectors import logind
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import NoData, Node

Measure = Callable[..., dict[str, float]]


def series(seat: str, remote: str, kind: str, class_: str) -> str:
    return (
        f'node_logind_sessions{{seat="{seat}",remote="{remote}",type="{kind}",class="{class_}"}}'
    )


def write(tree: Path, name: str, text: bytes) -> None:
    (tree / "root/run/systemd/sessions" / name).write_bytes(text)


def test_sessions_are_counted_by_kind(measure: Measure) -> None:
    assert measure(logind.collect) == {
        series("", "false", "tty", "user"): 1,
        series("", "true", "tty", "user"): 1,
        series("", "false", "unspecified", "background"): 1,
        series("", "false", "wayland", "greeter"): 1,
    }


def test_two_of_a_kind_are_one_series(measure: Measure, tree: Path) -> None:
    write(tree, "18", b"REMOTE=1\nTYPE=tty\nCLASS=user\n")
    assert measure(logind.collect, tree)[series("", "true", "tty", "user")] == 2


def test_what_node_exporter_does_not_know_is_other(measure: Measure, tree: Path) -> None:
    write(tree, "c2", b"REMOTE=0\nTYPE=holo\nCLASS=manager\n")
    write(tree, "c4", b"")
    assert measure(logind.collect, tree)[series("", "false", "other", "other")] == 2


def test_pipes_are_not_opened_and_vanished_sessions_left_out(measure: Measure, tree: Path) -> None:
    folder = tree / "root/run/systemd/sessions"
    os.mkfifo(folder / "2.ref")
    os.mkfifo(folder / "5")
    (folder / "4").symlink_to("gone")
    assert sum(measure(logind.collect, tree).values()) == 4


def test_a_hostile_seat_passes_through(measure: Measure, tree: Path) -> None:
    write(tree, "c3", b'SEAT=a"b\xff\\\nREMOTE=0\nTYPE=x11\nCLASS=user\n')
    assert measure(logind.collect, tree)[series('a\\"b\ufffd\\\\', "false", "x11", "user")] == 1


def test_without_logind_there_is_no_data(make_node: Callable[..., Node], tmp_path: Path) -> None:
    with pytest.raises(NoData):
        look(logind.collect, make_node(tmp_path))


def test_with_nobody_there_terminals_count_nought(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "root/run/systemd/sessions").mkdir(parents=True)
    assert measure(logind.collect, tmp_path) == {
        series("", "false", "tty", "user"): 0,
        series("", "true", "tty", "user"): 0,
    }
