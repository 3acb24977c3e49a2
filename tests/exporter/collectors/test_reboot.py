"""A machine that waits for a reboot says so, by its distribution's own sign."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import reboot
from narthex_exporter.sources.kernels import is_newest, parse_release

REQUIRED, NEWEST = "node_reboot_required", "narthex_kernel_running_is_newest"


def install(tree: Path, *releases: str) -> None:
    for release in releases:
        (tree / "root/lib/modules" / release).mkdir(parents=True)
        (tree / "root/boot").mkdir(exist_ok=True)
        (tree / "root/boot" / f"vmlinuz-{release}").touch()


def run(tree: Path, release: str) -> None:
    (tree / "proc/sys/kernel/osrelease").write_text(release + "\n")


def test_a_mark_of_the_package_manager_asks_for_a_reboot(
    measure: Callable[..., Any], tree: Path
) -> None:
    assert measure(reboot.collect, tree)[REQUIRED] == 1
    (tree / "root/run/reboot-required").unlink()
    assert measure(reboot.collect, tree)[REQUIRED] == 0


@pytest.mark.parametrize(
    ("database", "release", "wanted"),
    [
        ("", "6.1.0-25-amd64", {REQUIRED: 0, NEWEST: 0}),
        ("var/lib/rpm/rpmdb.sqlite", "6.1.0-25-amd64", {REQUIRED: 1, NEWEST: 0}),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite", "6.1.0-28-amd64", {REQUIRED: 0, NEWEST: 1}),
        ("var/lib/rpm/rpmdb.sqlite", "6.18.0-other", {REQUIRED: 0}),
    ],
)
def test_a_newer_kernel_asks_for_a_reboot_where_no_package_would(
    measure: Callable[..., Any],
    tree: Path,
    database: str,
    release: str,
    wanted: dict[str, float],
) -> None:
    (tree / "root/run/reboot-required").unlink()
    install(tree, "6.1.0-9-amd64", "6.1.0-28-amd64")
    run(tree, release)
    if database:
        (tree / "root" / database).parent.mkdir(parents=True)
        (tree / "root" / database).touch()
    assert measure(reboot.collect, tree) == wanted


def test_modules_that_were_left_behind_are_no_kernel(
    measure: Callable[..., Any], tree: Path
) -> None:
    install(tree, "6.1.0-25-amd64")
    (tree / "root/lib/modules/6.1.0-30-amd64/kernel").mkdir(parents=True)
    run(tree, "6.1.0-25-amd64")
    assert measure(reboot.collect, tree)[NEWEST] == 1
    (tree / "root/lib/modules/6.1.0-30-amd64/vmlinuz").touch()
    assert measure(reboot.collect, tree)[NEWEST] == 0


@pytest.mark.parametrize(
    ("running", "installed", "wanted"),
    [
        ("6.1.0-9-amd64", "6.1.0-25-amd64", False),
        ("6.1.0-9-amd64", "6.1.0-25-cloud-amd64", None),
        ("6.1.0-25-amd64", "6.12.43+deb13-amd64", False),
        ("5.15.0-122-generic", "5.15.0-97-generic", True),
        ("6.11.5-200.fc40.x86_64", "6.11.10-200.fc41.x86_64", False),
        ("5.14.0-503.15.1.el9_5.x86_64", "5.14.0-503.11.1.el9_5.x86_64", True),
        ("6.12.1-arch1-1", "6.12.1-arch1-1", True),
        ("6.1.0-9-amd64", "\udcff", None),
        ("odd", "6.1.0", None),
        ("6.18.0", "", None),
    ],
)
def test_kernels_are_compared_within_their_flavour(
    running: str,
    installed: str,
    wanted: Any,
) -> None:
    assert is_newest(running, [installed]) is wanted


def test_a_release_is_numbers_and_a_flavour() -> None:
    assert parse_release("6.1.0-25-cloud-amd64") == ((6, 1, 0, 25), "-cloud-amd")
    assert parse_release("") is None
