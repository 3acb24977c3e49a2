"""Tell tools everything about a running installation: ``run.json``, see docs/run-json.md."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from narthex_exporter.contract.errors import NarthexError


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Url(_Part):
    """A service that is reached without a certificate of ours."""

    url: str


class Panel(_Part):
    """The panel. ``credentials_file`` is JSON with ``user`` and ``password``."""

    url: str
    ca_file: str
    credentials_file: str


class ClientFiles(_Part):
    """A client certificate and its key."""

    cert_file: str
    key_file: str


class ScrapeFiles(ClientFiles):
    """What reads ``/metrics``: role ``scrape``, with the CA that signed the nodes."""

    ca_file: str


class NodePids(_Part):
    """A node's processes; 0 while one is not running."""

    exporter: int
    actor: int


class NodeEntry(_Part):
    """A node on this machine."""

    name: str
    id: str
    url: str
    pids: NodePids


class Pids(_Part):
    """The central processes; 0 while one is not running."""

    operator: int
    signer: int
    logstore: int
    prometheus: int
    alertmanager: int


class RunFile(_Part):
    """The whole of ``run.json``. Only additions are made to it."""

    panel: Panel
    api_token_file: str
    prometheus: Url
    alertmanager: Url
    logs: Url
    scrape: ScrapeFiles
    operator_client: ClientFiles
    nodes: tuple[NodeEntry, ...]
    pids: Pids


def read_run_file(path: Path) -> RunFile:
    """Read a running installation's file. Raises NarthexError."""
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise NarthexError(
            f"no installation runs here: cannot read {path}: {error.strerror}",
            hint="start one with script/up, or set NARTHEX_HOME to where it runs",
        ) from error
    except ValidationError as error:
        raise NarthexError(f"{path} is not a run file: {error.error_count()} errors") from error


def write_private(path: Path, content: bytes) -> None:
    """Replace a file of mode 0600 so that a reader sees the old or the new, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: BaseModel | dict[str, Any]) -> None:
    """Write a value as JSON, privately and atomically."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_private(path, (json.dumps(data, indent=2) + "\n").encode())
