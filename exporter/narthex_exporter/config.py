"""What the exporter's flags and file say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narthex_exporter.collectors.spec import Option


@dataclass(frozen=True, slots=True, kw_only=True)
class LogShipping:
    """Where logs go, and which file says what is read; without ``push_url`` they go nowhere."""

    push_url: str = ""
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What flags and file say. ``collectors`` overrides what is on by default, by name.

    ``modules`` are those of the collectors that may be on; None is all there are.
    """

    listen: tuple[tuple[str, int], ...] = (("127.0.0.1", 19100),)
    web_config: Path | None = None
    telemetry_path: str = "/metrics"
    max_requests: int = 40
    exporter_metrics: bool = True
    state_dir: Path = Path("/var/lib/narthex")
    actor_socket: Path = Path("/run/narthex/actor.sock")
    logs: LogShipping = field(default_factory=LogShipping)
    procfs: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    rootfs: Path = Path("/")
    udev: Path = Path("/run/udev/data")
    collectors: Mapping[str, bool] = field(default_factory=dict)
    disable_defaults: bool = False
    settings: "Mapping[Option[Any], str]" = field(default_factory=dict)
    modules: tuple[str, ...] | None = None
    probes: Path = Path("/run/narthex-probe")
    version: str = "unknown"
