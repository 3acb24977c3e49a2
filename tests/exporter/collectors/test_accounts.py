"""Accounts are counted by what they may do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import accounts
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.sources.accounts import parse_accounts


def test_accounts_and_those_as_good_as_root_are_counted(measure: Callable[..., Any]) -> None:
    assert measure(accounts.collect) == {
        'narthex_accounts{kind="login"}': 4,
        'narthex_accounts{kind="nologin"}': 2,
        "narthex_root_equivalent_users": 4,  # root, toor, alice, carol
    }


def test_a_member_that_is_added_is_seen(make_node: Callable[..., Node], tree: Path) -> None:
    node = make_node(tree)
    assert [each.value for each in accounts.collect.collect(node)][-1] == 4  # type: ignore[union-attr]  # Samples
    with (tree / "root/etc/group").open("a") as file:
        file.write("wheel:x:10:bob\n")
    assert [each.value for each in accounts.collect.collect(node)][-1] == 5  # type: ignore[union-attr]


def test_a_primary_group_counts_for_who_has_a_shell() -> None:
    group = "libvirt:x:64:\n"
    passwd = "a:x:1:64::/:/bin/sh\nb:x:2:64::/:/usr/sbin/nologin\n"
    assert parse_accounts(passwd, group).root_equivalent == 1


@pytest.mark.parametrize(
    "line", ["", "#x:x:0:0::/:/bin/sh", "+::::::", "-@old:x:0:0::/:/bin/sh", "a:x:0", "\ufffd\x00"]
)
def test_a_line_that_is_no_account_is_skipped(line: str) -> None:
    found = parse_accounts(line + "\nroot:x:0:0::/:/bin/sh\n", line + "\n")
    assert (found.login, found.nologin, found.root_equivalent) == (1, 0, 1)


def test_a_machine_without_accounts_says_so(measure: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(NoData, match="no /etc/passwd"):
        measure(accounts.collect, tmp_path)


def test_this_machine_has_root(measure: Callable[..., Any]) -> None:
    text = Path("/etc/passwd").read_text()
    found = parse_accounts(text, Path("/etc/group").read_text())
    assert found.login + found.nologin == len(text.splitlines())
    assert found.root_equivalent >= 1
