"""Certificates on the machine are found, told apart, and no more than asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import certificates
from narthex_exporter.collectors.spec import NoData, Node

AFTER = "narthex_certificate_not_after_timestamp_seconds"
BEFORE = "narthex_certificate_not_before_timestamp_seconds"
UNREADABLE = "narthex_certificate_unreadable_files"


def put(tree: Path, name: str, data: bytes) -> None:
    path = tree / "root" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_each_certificate_tells_from_when_to_when_it_holds(
    measure: Callable[..., Any], tree: Path
) -> None:
    found = measure(certificates.collect, tree)
    series = (
        '{path="/etc/letsencrypt/live/web-1.example.org/cert.pem",subject="CN=web-1.example.org"}'
    )
    assert found[AFTER + series] - found[BEFORE + series] == 90 * 86400
    assert found[UNREADABLE] == 0


def test_a_file_without_a_certificate_is_counted(measure: Callable[..., Any], tree: Path) -> None:
    put(tree, "etc/ssl/a.pem", b"-----BEGIN PRIVATE KEY-----\n")
    (tree / "root/etc/ssl/b.crt").symlink_to("gone")
    found = measure(certificates.collect, tree)
    assert found[UNREADABLE] == 2
    assert len(found) == 3


def test_patterns_are_settings_and_files_are_bounded(
    make_node: Callable[..., Node], tree: Path, authority: Any
) -> None:
    for number in range(5):
        put(tree, f"srv/tls/{number}.pem", authority.leaf(file="many").cert.read_bytes())
    paths = certificates.PATHS.parse("/srv/tls/*.pem, /srv/tls/0.pem,")
    node = make_node(tree, settings={certificates.PATHS: paths, certificates.LIMIT: 3})
    assert len(list(certificates.collect.collect(node))) == 3 * 2 + 1
    assert node.cut == {certificates.LIMIT}


def test_a_machine_without_certificates_says_so(
    measure: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(NoData, match="no file matches"):
        measure(certificates.collect, tmp_path)


def test_a_pattern_that_is_not_absolute_is_refused() -> None:
    with pytest.raises(ValueError, match="slash"):
        certificates.PATHS.parse("etc/*.pem")
