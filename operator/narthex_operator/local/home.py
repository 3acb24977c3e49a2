"""Say where everything of a local installation lies, and on which ports it listens."""

import fcntl
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from narthex_exporter.contract.errors import NarthexError

DEFAULT_BASE: Final = 19100
EXTRA_NODES: Final = 10
"""Further nodes' exporters begin this many ports after the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of one installation, all moved by NARTHEX_PORT_BASE."""

    base: int = DEFAULT_BASE

    @classmethod
    def from_environment(cls) -> "Ports":
        """Read NARTHEX_PORT_BASE. Raises NarthexError when it is no usable port."""
        text = os.environ.get("NARTHEX_PORT_BASE", str(DEFAULT_BASE))
        if not text.isascii() or not text.isdigit() or not 1024 <= int(text) <= 65000:  # noqa: PLR2004
            raise NarthexError(
                f"NARTHEX_PORT_BASE is {text!r}, which is no port from 1024 to 65000",
                hint="choose a number such as 19100; the ports after it are used too",
            )
        return cls(base=int(text))

    def exporter(self, index: int) -> int:
        """Tell the port of the index-th node's exporter, from 0."""
        return self.base if index == 0 else self.base + EXTRA_NODES + index - 1

    @property
    def operator(self) -> int:
        """The operator with its panel: HTTPS."""
        return self.base + 1

    @property
    def logstore(self) -> int:
        """The embedded log store: plain HTTP on loopback, as Loki."""
        return self.base + 2

    @property
    def prometheus(self) -> int:
        """Prometheus on loopback."""
        return self.base + 3

    @property
    def alertmanager(self) -> int:
        """Alertmanager on loopback."""
        return self.base + 4

    @property
    def gateway(self) -> int:
        """The operator's gateway for nodes: mutual TLS."""
        return self.base + 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHome:
    """One node's state on this machine."""

    name: str
    path: Path

    @property
    def identity(self) -> Path:
        """Who the node is; written when it has joined."""
        return self.path / "node.json"

    @property
    def policy(self) -> Path:
        """What its actor may do."""
        return self.path / "policy.yaml"

    @property
    def socket(self) -> Path:
        """Where its actor listens."""
        return self.path / "actor.sock"

    @property
    def actor(self) -> Path:
        """The actor's own state."""
        return self.path / "actor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The folder of one installation: $NARTHEX_HOME."""

    path: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """Read NARTHEX_HOME, by default ./var."""
        return cls(path=Path(os.environ.get("NARTHEX_HOME") or "var").absolute())

    def create(self) -> None:
        """Make the folders, closed to others. Raises NarthexError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            for name in ("secrets", "signer", "pki", "log", "nodes", "prometheus/rules.d"):
                (self.path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NarthexError(
                f"cannot write to {self.path}: {error.strerror}",
                hint="set NARTHEX_HOME to a folder of yours, on a disk with room",
            ) from error

    def log(self, part: str) -> Path:
        """Where a part's output goes."""
        return self.path / "log" / f"{part}.log"

    def node(self, name: str) -> NodeHome:
        """Name the folder of a node on this machine."""
        return NodeHome(name=name, path=self.path / "nodes" / name)

    @property
    def run_file(self) -> Path:
        """What tools read: docs/run-json.md."""
        return self.path / "run.json"

    @property
    def state_file(self) -> Path:
        """What the supervisor says of each part."""
        return self.path / "state.json"

    @property
    def lock_file(self) -> Path:
        """Held by the running supervisor; names its pid."""
        return self.path / "up.lock"

    @property
    def operator_config(self) -> Path:
        """The operator's configuration, written by the supervisor."""
        return self.path / "operator.yaml"

    @property
    def credentials(self) -> Path:
        """The first user and password."""
        return self.path / "secrets" / "admin.json"

    @property
    def api_token(self) -> Path:
        """An administrator's API token for scripts on this machine."""
        return self.path / "secrets" / "api.token"

    @property
    def signer_socket(self) -> Path:
        """Where the signer listens."""
        return self.path / "signer.sock"

    @property
    def pki(self) -> Path:
        """The certificates of panel, gateway, operator and Prometheus."""
        return self.path / "pki"


def this_machine() -> str:
    """Name this machine as a node: its host name, made to fit."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
    return name[:50] or "node"


def holder(home: Home) -> int | None:
    """Tell the pid of the supervisor that holds the lock; None when nobody does."""
    try:
        with home.lock_file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = lock.read().strip()
                return int(text) if text.isdigit() else None
    except OSError:
        return None
    return None
