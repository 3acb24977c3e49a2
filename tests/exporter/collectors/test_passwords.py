"""Who needs no password is counted, and nothing else of shadow is told."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import passwords
from narthex_exporter.collectors.spec import NoData
from narthex_exporter.sources.accounts import count_without_password


def test_users_with_an_empty_password_are_counted(measure: Callable[..., Any]) -> None:
    assert measure(passwords.collect) == {"narthex_users_without_password": 1}


@pytest.mark.parametrize("line", ["", "a", ":", "::1:", "a:x", "a:!:", "a:*", "\ufffd:\x00"])
def test_a_line_that_is_locked_or_broken_does_not_count(line: str) -> None:
    assert count_without_password(line + "\nb::1:::::\n") == 1


def test_without_the_file_or_the_right_it_says_why(
    measure: Callable[..., Any], tmp_path: Path, tree: Path
) -> None:
    with pytest.raises(NoData, match="no /etc/shadow"):
        measure(passwords.collect, tmp_path)
    (tree / "root/etc/shadow").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(NoData, match="root's alone"):
            measure(passwords.collect, tree)
    finally:
        os.seteuid(0)
