import socket
from pathlib import Path

import pytest

from narthex_exporter.contract.errors import NarthexError
from narthex_operator.local.checks import check_ports, check_room, find_binaries
from narthex_operator.local.home import Home, Ports


def test_a_taken_port_names_who_has_it_and_how_to_move() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NarthexError, match=rf"port {port} .*held by .*pid \d+") as told:
            check_ports("127.0.0.1", [("operator", port)])
    assert "NARTHEX_PORT_BASE" in told.value.hint


def test_a_full_disk_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(NarthexError, match="MiB are free"):
        check_room(tmp_path, least_bytes=1 << 60)


def test_a_missing_prometheus_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(NarthexError, match="not installed") as told:
        find_binaries(path=str(tmp_path))
    assert "apt-get install prometheus" in told.value.hint or "script/up" in told.value.hint


@pytest.mark.parametrize("text", ["", "x", "80", "-1", "70000", "19100 ", "١٩١٠٠"])
def test_a_wrong_port_base_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARTHEX_PORT_BASE", text)
    with pytest.raises(NarthexError, match="NARTHEX_PORT_BASE"):
        Ports.from_environment()


def test_the_base_moves_every_port() -> None:
    ports, moved = Ports(base=20000), Ports(base=30000)
    names = ("operator", "logstore", "prometheus", "alertmanager", "gateway")
    assert all(getattr(moved, name) - getattr(ports, name) == 10000 for name in names)
    assert [ports.exporter(index) for index in (0, 1, 2)] == [20000, 20010, 20011]


def test_the_home_is_closed_to_others(tmp_path: Path) -> None:
    home = Home(path=tmp_path / "home")
    home.create()
    assert home.path.stat().st_mode & 0o077 == 0


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NarthexError, match="cannot write") as told:
        Home(path=tmp_path / "file" / "home").create()
    assert "NARTHEX_HOME" in told.value.hint
