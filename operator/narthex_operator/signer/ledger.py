"""Write the signer's own audit: JSON lines, each bound to the one before."""

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from narthex_exporter.contract.errors import NarthexError
from narthex_operator.security.chain import GENESIS, canonical, clean_details, link

_FILE_BYTES: Final = 16 << 20


class LedgerError(NarthexError):
    """The signer's audit cannot be written, or contradicts itself."""


@dataclass(slots=True)
class Ledger:
    """An open audit file. What cannot be written down is not signed."""

    path: Path
    file_bytes: int = _FILE_BYTES
    _descriptor: int = field(default=-1, init=False)
    _seq: int = field(default=0, init=False)
    _head: str = field(default=GENESIS, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._descriptor = _open(self.path)
        try:
            self._recover()
        except (OSError, NarthexError):
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def append(self, event: str, **details: Any) -> None:
        """Write one row and wait until it is on disk. Raises LedgerError."""
        self.append_many(event, (details,))

    def append_many(self, event: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a row for each of some details, all or none, and wait once. Raises LedgerError."""
        with self._lock:
            seq, head = self._seq, self._head
            lines = bytearray()
            for details in rows:
                seq += 1
                row = {
                    "seq": seq,
                    "at": datetime.now(tz=UTC).isoformat(timespec="milliseconds"),
                    "event": event,
                    "prev": head,
                    **clean_details(details),
                }
                head = link(head, row)
                lines += canonical({**row, "hash": head}) + b"\n"
            try:
                self._rotate()
                self._write(bytes(lines))
            except OSError as error:
                raise LedgerError(
                    f"cannot write the signer's audit {self.path}: {error.strerror}",
                    hint="nothing is signed without it: free some room",
                ) from error
            self._seq, self._head = seq, head

    def _write(self, lines: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, lines) != len(lines):
                raise OSError(28, "No space left on device")  # noqa: TRY301 - as a full disk
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise

    def _rotate(self) -> None:
        if os.fstat(self._descriptor).st_size < self.file_bytes:
            return
        self.path.rename(self.path.with_name(f"{self.path.stem}-{self._seq:012d}.jsonl"))
        os.close(self._descriptor)
        self._descriptor = _open(self.path)

    def _recover(self) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            # A crash cut this row short: what it would have told of was never signed.
            os.ftruncate(self._descriptor, whole)
        older = sorted(self.path.parent.glob(f"{self.path.stem}-*.jsonl"))
        for path in (*older[-1:], self.path):
            for row in verified(path):
                self._seq, self._head = row["seq"], row["hash"]


def verified(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file's rows, proving each. Raises LedgerError that names the first wrong line."""
    prev: str | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                told = row.pop("hash")
                intact = prev in {None, row["prev"]} and told == link(row["prev"], row)
            except (ValueError, KeyError, TypeError, AttributeError):
                intact = False
            if not intact:
                raise LedgerError(
                    f"{path} was changed: line {number} does not follow from the one before",
                    hint="keep the file as evidence: move it away, then start the signer",
                )
            prev = told
            yield {**row, "hash": told}


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise LedgerError(f"cannot open {path}: {error.strerror}") from error
