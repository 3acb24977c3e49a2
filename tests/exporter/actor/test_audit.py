"""SECURITY.md 27, the agent: what was written down cannot be changed unseen.

That the operator sees it too is proven in tests/operator/audit/test_witness.py.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from narthex_exporter.actor.audit import (
    Audit,
    AuditError,
    DamagedError,
    Head,
    verify,
    verify_all,
)
from narthex_exporter.actor.commands import actor
from narthex_exporter.contract.chain import row_hash

Lines = list[bytes]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, boot_id="b")
    for number in range(10):
        audit.append("test.row", number=number)
    audit.close()
    return path


def restamped(lines: Lines) -> Lines:
    """Change one row and hash everything behind it anew, as somebody with root could."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    rows[4]["number"] = 99
    for index in range(4, len(rows)):
        rows[index]["prev"] = rows[index - 1]["hash"]
        rows[index]["hash"] = row_hash(rows[index])
    return [json.dumps(row, sort_keys=True, separators=(",", ":")).encode() for row in rows]


ALTERED: dict[str, Callable[[Lines], Lines]] = {
    "a flipped byte": lambda lines: [*lines[:3], lines[3].replace(b'"b"', b'"c"'), *lines[4:]],
    "a dropped row": lambda lines: lines[:3] + lines[4:],
    "swapped rows": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "a doubled row": lambda lines: lines[:4] + lines[3:],
    "a row that is none": lambda lines: [*lines[:3], b"x", *lines[3:]],
    "a row that is a list": lambda lines: [*lines[:3], b"[]", *lines[3:]],
}


@pytest.mark.parametrize("what", ALTERED)
def test_the_chain_shows(record: Path, what: str) -> None:
    lines = ALTERED[what](record.read_bytes().splitlines())
    record.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(AuditError, match="was changed"):
        verify(record)
    with pytest.raises(AuditError, match="was changed"):
        Audit(record)


@pytest.mark.parametrize("alter", [lambda lines: lines[:8], restamped])
def test_a_head_that_was_witnessed_shows_a_cut_or_rewritten_tail(
    record: Path, alter: Callable[[Lines], Lines]
) -> None:
    witnessed = verify(record)
    record.write_bytes(b"\n".join(alter(record.read_bytes().splitlines())) + b"\n")
    assert verify(record) != witnessed


def test_a_row_that_a_crash_cut_short_is_taken_away(record: Path) -> None:
    head = verify(record)
    with record.open("ab") as file:
        file.write(b'{"seq": 11, "prev"')
    audit = Audit(record)
    assert audit.head == head
    assert audit.append("test.row").seq == 11
    audit.close()


def test_a_full_file_is_put_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, file_bytes=1000, kept_files=3)
    for number in range(40):
        audit.append("test.row", number=number)
    audit.close()
    assert len(list(tmp_path.glob("audit-*.jsonl"))) == 3
    head = verify_all(path)
    assert head is not None
    assert head.seq == 40
    path.unlink()
    again = Audit(path)
    assert again.head == verify(max(tmp_path.glob("audit-*.jsonl")))
    again.close()


def test_a_file_between_others_that_is_missing_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, file_bytes=1000)
    for number in range(40):
        audit.append("test.row", number=number)
    audit.close()
    sorted(tmp_path.glob("audit-*.jsonl"))[2].unlink()
    with pytest.raises(AuditError, match="does not follow"):
        verify_all(path)


def test_the_record_is_for_its_owner_only(record: Path) -> None:
    assert record.stat().st_mode & 0o777 == 0o600


def test_a_record_that_is_a_link_is_not_followed(tmp_path: Path, record: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(record)
    with pytest.raises(AuditError, match="cannot write"):
        Audit(link)


def test_a_full_disk_is_an_error_and_leaves_no_half_row(record: Path) -> None:
    audit = Audit(record)
    audit.close()
    audit._descriptor = os.open(record, os.O_RDONLY)
    size = record.stat().st_size
    with pytest.raises(AuditError, match="cannot write"):
        audit.append("test.row")
    audit.close()
    assert record.stat().st_size == size


@given(text=st.text(max_size=50))
def test_no_text_breaks_a_row(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    audit = Audit(path)
    head = audit.append("test.row", text=text)
    audit.close()
    assert verify(path) == Head(seq=1, hash=head.hash)


def number(path: Path, count: int, **more: Any) -> Audit:
    audit = Audit(path, **more)
    for each in range(count):
        audit.append("test.row", number=each, text="x" * (each % 50))
    return audit


def test_rows_are_read_on_from_any_of_them(tmp_path: Path) -> None:
    audit = number(tmp_path / "audit.jsonl", 600, file_bytes=60_000)
    for after in (0, 1, 77, 250, 598, 599, 600, 10_000):
        part = audit.after(after, limit=20, most_bytes=1 << 20)
        wanted = list(range(after + 1, min(after + 20, 600) + 1))
        assert [row["seq"] for row in part.rows] == wanted
        assert (part.first, part.head) == (1, audit.head)
    audit.close()


def test_a_part_is_bounded_and_holds_one_row_at_least(tmp_path: Path) -> None:
    audit = number(tmp_path / "audit.jsonl", 9)
    assert len(audit.after(0, limit=3, most_bytes=1 << 20).rows) == 3
    assert len(audit.after(0, limit=500, most_bytes=1).rows) == 1
    assert 1 < len(audit.after(0, limit=500, most_bytes=900).rows) < 9
    audit.close()


def test_what_went_by_rotation_is_said_to_be_gone(tmp_path: Path) -> None:
    audit = number(tmp_path / "audit.jsonl", 200, file_bytes=2000, kept_files=3)
    part = audit.after(0, limit=500, most_bytes=1 << 20)
    assert part.first == part.rows[0]["seq"] > 1
    assert part.rows[-1]["seq"] == 200
    audit.close()


def test_an_empty_record_has_no_rows(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    assert audit.after(0, limit=5, most_bytes=9).rows == ()
    audit.close()


def test_a_row_being_written_is_not_told_yet(tmp_path: Path) -> None:
    audit = number(tmp_path / "audit.jsonl", 5)
    with audit.path.open("ab") as file:
        file.write(b'{"seq": 6, "prev"')
    assert [row["seq"] for row in audit.after(3, limit=9, most_bytes=9999).rows] == [4, 5]
    audit.close()


def test_a_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    audit = number(tmp_path / "audit.jsonl", 5)
    with audit.path.open("ab") as file:
        file.write(b'["x"]\n')
    with pytest.raises(DamagedError, match="no row"):
        audit.after(0, limit=9, most_bytes=9999)
    audit.close()


def test_the_command_checks_a_record(record: Path) -> None:
    done = CliRunner().invoke(actor, ["verify-audit", str(record)])
    assert done.output.startswith("10 rows, head ")
