"""Updates that wait are counted by where they come from, and the manager is asked seldom."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import updates
from narthex_exporter.collectors.spec import NoData
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.apt import (
    Apt,
    Upgrade,
    count_removals,
    parse_release,
    parse_upgrades,
)
from narthex_exporter.sources.dnf import Dnf, parse_advisories, parse_updates
from narthex_exporter.sources.place import Sources
from narthex_exporter.sources.programs import Done, MissingError

APT = """\
Inst base-files [12.4+deb12u7] (12.4+deb12u8 Debian:12.8/stable [amd64])
Conf base-files (12.4+deb12u8 Debian:12.8/stable [amd64])
Inst linux-image-amd64 [6.1.115-1] (6.1.119-1 Debian-Security:12/stable-security [amd64]) []
Inst linux-image-6.1.0-28-amd64 (6.1.119-1 Debian-Security:12/stable-security [amd64])
Inst libssl3:i386 [3] (4 Debian:12.8/stable, Debian-Security:12/stable-security [i386]) [a ]
Inst tzdata [2024a] (2024b Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [all])
Inst local-tool [1] (2 localhost [all])
Inst odd [1] (2 [all])
Inst
Inst torn [1
Remv unused [1.0-1]
E: \ufffd"quoted"
"""

DNF4 = """\

bash.x86_64                            5.2.26-4.el9                  baseos
kernel.x86_64                          5.14.0-503.15.1.el9_5         baseos
python3-urllib3.noarch                 1.26.5-6.el9                  appstream
Security: kernel-core-5.14.0-503.15.1.el9_5.x86_64 is an installed security update
Obsoleting Packages
iptables-nft.x86_64                    1.8.10-5.el9                  baseos
    iptables-libs.x86_64               1.8.8-6.el9                   @System
"""
DNF4_SECURITY = """\
RHSA-2024:10939 Important/Sec. kernel-5.14.0-503.15.1.el9_5.x86_64
RHSA-2024:10944 Important/Sec. kernel-5.14.0-503.14.1.el9_5.x86_64
RHSA-2024:11111 Moderate/Sec.  python3-urllib3-1.26.5-6.el9.noarch
RHSA-2024:22222 Unknown/Sec.   gone-1:2.0-1.el9.x86_64
"""
DNF5 = """\
Available upgrades
bash.x86_64            5.2.32-1.fc41     updates
openssl-libs.x86_64    1:3.2.2-9.fc41    updates
Obsoleting packages
dnf5.x86_64            5.2.8-1.fc41      updates
    dnf.noarch         4.21-1.fc41       fedora
"""
DNF5_SECURITY = """\
Name                   Type     Severity   Package                          Issued
FEDORA-2024-0a1b2c3d4e security Important  openssl-libs-1:3.2.2-9.fc41.x86_64 2024-11-14 01:21:09
FEDORA-2024-0a1b2c3d4f security None       not-here-1.0-1.fc41.noarch       2024-11-14 01:21:09
"""


class Answers:
    """Programs' recorded output; what is not recorded is not on the machine."""

    def __init__(self, **answers: Done) -> None:
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, argv: tuple[str, ...], **_: float) -> Done:
        self.asked.append(argv)
        for word, done in self.answers.items():
            if word.replace("_", "-") in argv:
                return done
        raise MissingError(argv[0])


def done(text: str, code: int = 0, error: str = "") -> Done:
    return Done(code=code, output=text.encode(), error=error)


def apt(tree: Path, upgrades: Done, removals: Done | None = None) -> Apt:
    run = Answers(dist_upgrade=upgrades, autoremove=removals or done(""))
    return Apt(root=tree / "root", run=run)


def dnf(tree: Path, listed: Done, security: Done) -> Dnf:
    return Dnf(root=tree / "root", run=Answers(check_update=listed, updateinfo=security))


def test_upgrades_are_read_with_their_origins() -> None:
    both = "Debian-Security:12/stable-security,Debian:12.8/stable"
    found = parse_upgrades(APT)
    assert [each.package for each in found if each.security] == [
        "linux-image-amd64",
        "libssl3",
        "tzdata",
    ]
    assert found[2] == Upgrade("libssl3", both, "i386", True)
    assert found[-2:] == [
        Upgrade("local-tool", "localhost", "all", False),
        Upgrade("odd", "", "all", False),
    ]
    assert len(found) == 6
    assert count_removals(APT) == 1


def test_upgrades_are_counted_by_origin_and_held_ones_apart(
    measure: Callable[..., Any], tree: Path
) -> None:
    os.utime(tree / "root/var/lib/apt/lists/partial", (1.7e9, 1.7e9))
    sources = Sources(
        known={Apt: apt(tree, done(APT), done("Remv a [1]\nRemv b [2] [c:amd64 ]\n"))}
    )
    found = measure(updates.collect, tree, sources=sources)
    security = '{origin="Debian-Security:12/stable-security",arch="amd64"}'
    assert found["apt_upgrades_pending" + security] == 1
    assert found["apt_upgrades_held" + security] == 1
    assert found["apt_autoremove_pending"] == 2
    assert found['narthex_updates_pending{manager="apt",security="true"}'] == 3
    assert found['narthex_updates_pending{manager="apt",security="false"}'] == 3
    assert found["apt_package_cache_timestamp_seconds"] == 1.7e9
    assert found['narthex_updates_last_refresh_timestamp_seconds{manager="apt"}'] == 1.7e9


RELEASE = """\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Origin: Debian
Label: Debian-Security
Suite: stable-security
Version: 12
Codename: bookworm-security
Acquire-By-Hash: yes
SHA256:
 Origin: no field
"""


def test_origins_are_named_as_the_textfile_script_names_them(
    measure: Callable[..., Any], tree: Path
) -> None:
    lists = tree / "root/var/lib/apt/lists"
    (lists / "deb.example.org_dists_bookworm-security_InRelease").write_text(RELEASE)
    (lists / "gone_Release").symlink_to("gone")
    sources = Sources(known={Apt: apt(tree, done(APT))})
    found = measure(updates.collect, tree, sources=sources)
    name = "Debian:bookworm-security/stable-security"
    assert found[f'apt_upgrades_pending{{origin="{name}",arch="amd64"}}'] == 1
    assert found[f'apt_upgrades_pending{{origin="Debian:12.8/stable,{name}",arch="i386"}}'] == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Suite: stable\n", ("stable", ":/stable")),
        ("Label: a b\nSuite: s\nOrigin: o\nCodename: c\n", ("a b:s", "o:c/s")),
        ("SHA256:\nSuite: late\n", None),
        ("\ufffd", None),
        ("", None),
    ],
)
def test_a_release_files_head_is_read(text: str, wanted: Any) -> None:
    assert parse_release(text) == wanted


def test_nothing_pending_is_a_nought(measure: Callable[..., Any], tree: Path) -> None:
    sources = Sources(known={Apt: apt(tree, done(""))})
    found = measure(updates.collect, tree, sources=sources)
    assert found['apt_upgrades_pending{origin="",arch=""}'] == 0
    assert found['apt_upgrades_held{origin="",arch=""}'] == 0


def test_apt_is_asked_again_only_when_something_changed(tree: Path) -> None:
    manager = apt(tree, done(APT))
    first = manager.get()
    assert manager.get() is first
    os.utime(tree / "root/var/lib/dpkg/status", (1, 1))
    assert manager.get() is not first


def test_a_failing_apt_says_why_and_is_asked_again(tree: Path) -> None:
    manager = apt(tree, done("", 100, "W: Odd.\nE: Unmet dependencies.\nE: more\n"))
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"do: E: Unmet dependencies\.$"):
            manager.get()
    assert len(manager.run.asked) == 2  # type: ignore[attr-defined]  # Answers


def test_dnf4_and_dnf5_lists_are_read() -> None:
    assert parse_updates(DNF4) == {"bash.x86_64", "kernel.x86_64", "python3-urllib3.noarch"}
    assert parse_updates(DNF5) == {"bash.x86_64", "openssl-libs.x86_64"}
    assert parse_advisories(DNF4_SECURITY) == {
        "kernel.x86_64",
        "python3-urllib3.noarch",
        "gone.x86_64",
    }
    assert parse_advisories(DNF5_SECURITY) == {"openssl-libs.x86_64", "not-here.noarch"}
    assert parse_updates("") == parse_advisories("") == frozenset()


@pytest.mark.parametrize(
    ("cache", "listed", "security", "pending"),
    [
        ("var/cache/dnf", DNF4, DNF4_SECURITY, (2, 1)),
        ("var/cache/libdnf5", DNF5, DNF5_SECURITY, (1, 1)),
    ],
)
def test_dnf_tells_of_security_updates_that_are_pending(
    measure: Callable[..., Any],
    tmp_path: Path,
    cache: str,
    listed: str,
    security: str,
    pending: tuple[int, int],
) -> None:
    repository = tmp_path / "root" / cache / "updates-1f/repodata"
    repository.mkdir(parents=True)
    os.utime(repository, (1.6e9, 1.6e9))
    sources = Sources(known={Dnf: dnf(tmp_path, done(listed, 100), done(security))})
    found = measure(updates.collect, tmp_path, sources=sources)
    assert found == {
        'narthex_updates_pending{manager="dnf",security="true"}': pending[0],
        'narthex_updates_pending{manager="dnf",security="false"}': pending[1],
        'narthex_updates_last_refresh_timestamp_seconds{manager="dnf"}': 1.6e9,
    }


def test_dnf_without_metadata_says_why(tmp_path: Path) -> None:
    broken = done("", 1, "Error: Cache-only enabled but no cache for 'baseos'\n")
    with pytest.raises(UnavailableError, match="no cache for 'baseos'"):
        dnf(tmp_path, broken, broken).get()


def test_a_folder_that_dnf_left_behind_is_no_dnf(
    measure: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "root/var/cache/dnf").mkdir(parents=True)
    sources = Sources(known={Dnf: Dnf(root=tmp_path / "root", run=Answers())})
    with pytest.raises(NoData, match="neither apt nor dnf"):
        measure(updates.collect, tmp_path, sources=sources)


def test_this_machines_apt_tells_as_many_as_apt_list_does() -> None:
    if not Path("/var/lib/dpkg/status").exists():
        pytest.skip("this machine has no apt")
    listed = subprocess.run(
        ["apt", "list", "--upgradable"], capture_output=True, check=True, text=True
    )
    before = state(Path("/var/lib/dpkg"))
    found = Apt().get()
    assert state(Path("/var/lib/dpkg")) == before
    assert len(found.upgrades) == listed.stdout.count("[upgradable from: ")
    assert all(each.arch for each in found.upgrades)


def state(root: Path) -> dict[Path, tuple[int, int]]:
    """What apt must leave as it is; for a device, the mode would be changed."""
    paths = [*root.rglob("*"), Path("/dev/null"), Path("/var/cache/apt"), Path("/var/lib/apt")]
    return {path: (path.stat().st_mode, path.stat().st_ctime_ns) for path in paths}


def test_apt_is_asked_about_the_machine_below_the_root(tree: Path) -> None:
    if not Path("/usr/bin/apt-get").exists():
        pytest.skip("this machine has no apt")
    root = tree / "root"
    (root / "var/lib/dpkg/status").write_text(
        "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
        "Maintainer: b <b@example.org>\nDescription: a\n"
    )
    before = state(root)
    found = Apt(root=root).get()
    assert (found.upgrades, found.removable) == ((), 0)
    assert state(root) == before
