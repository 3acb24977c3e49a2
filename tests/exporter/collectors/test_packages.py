"""Packages are counted by how they are, and read again only when they changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import packages
from narthex_exporter.collectors.spec import NoData
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.dpkg import Dpkg, parse_status
from narthex_exporter.sources.place import Sources
from narthex_exporter.sources.programs import Done, MissingError
from narthex_exporter.sources.rpm import Rpm


def rpm(tmp_path: Path, output: bytes = b"", code: int = 0, error: str = "") -> Rpm:
    (tmp_path / "root/var/lib/rpm").mkdir(parents=True, exist_ok=True)
    (tmp_path / "root/var/lib/rpm/rpmdb.sqlite").touch()
    answer = Done(code=code, output=output, error=error)
    return Rpm(root=tmp_path / "root", run=lambda *_, **__: answer)


def test_installed_and_broken_packages_are_counted(measure: Callable[..., Any]) -> None:
    assert measure(packages.collect) == {
        'narthex_packages_installed{manager="dpkg"}': 3,
        'narthex_packages_broken{manager="dpkg"}': 2,
    }


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"\n\n\n",
        b"Status: install ok installed\n",
        b"Package: a\nStatus: install ok\n",
        b"Package: a\n\nStatus: install ok installed\n",
        b"Package: \xff\nStatus: \xff \xff \xff \xff\n",
    ],
)
def test_a_paragraph_that_is_none_is_passed_over(spoilt: bytes) -> None:
    assert parse_status(spoilt).installed == 0
    whole = spoilt + b"\nPackage: b\nStatus: hold ok installed\n"
    assert parse_status(whole).installed == 1
    assert parse_status(whole).held == {"b"}


def test_the_status_file_is_parsed_again_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("Package: a\nStatus: install ok installed\n")
    dpkg = Dpkg(path)
    first = dpkg.get()
    assert dpkg.get() is first
    path.write_text("")
    assert dpkg.get().installed == 0


def test_rpm_packages_are_counted_without_keys(
    measure: Callable[..., Any], tmp_path: Path
) -> None:
    sources = Sources(known={Rpm: rpm(tmp_path, b"bash\ngpg-pubkey\nkernel\nkernel\n")})
    assert measure(packages.collect, tmp_path, sources=sources) == {
        'narthex_packages_installed{manager="rpm"}': 3
    }


def test_a_failing_rpm_says_why(measure: Callable[..., Any], tmp_path: Path) -> None:
    sources = Sources(
        known={Rpm: rpm(tmp_path, code=1, error="error: cannot open Packages database\n")}
    )
    with pytest.raises(UnavailableError, match="cannot open Packages database"):
        measure(packages.collect, tmp_path, sources=sources)


def test_a_machine_without_packages_says_so(measure: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(NoData, match="neither"):
        measure(packages.collect, tmp_path)

    def absent(*_: Any, **__: Any) -> Done:
        raise MissingError("rpm")

    source = rpm(tmp_path)
    source.run = absent
    with pytest.raises(NoData, match="neither"):
        measure(packages.collect, tmp_path, sources=Sources(known={Rpm: source}))


def test_this_machines_packages_are_as_many_as_dpkg_says(measure: Callable[..., Any]) -> None:
    status = Path("/var/lib/dpkg/status")
    if not status.exists():
        pytest.skip("this machine has no dpkg")
    lists = list(Path("/var/lib/dpkg/info").glob("*.list"))
    assert 0 < Dpkg(status).get().installed <= len(lists)
