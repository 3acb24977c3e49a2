"""Ask libvirt which virtual machines there are and how they do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.programs import Done, run
from narthex_exporter.sources.text import clean

# virDomainState, in libvirt's order.
STATES: Final = (
    "nostate",
    "running",
    "blocked",
    "paused",
    "shutdown",
    "shutoff",
    "crashed",
    "pmsuspended",
)
# What `virsh list` calls them.
_LISTED: Final = {
    "no state": "nostate",
    "idle": "blocked",
    "in shutdown": "shutdown",
    "shut off": "shutoff",
}
_STATS: Final = ("domstats", "--raw", "--state", "--cpu-total", "--balloon", "--vcpu")
_DOMAIN: Final = "Domain: '"
_NAME_LENGTH: Final = 128
_KIB: Final = 1024
_SECONDS: Final = 25.0


class NotRunningError(UnavailableError):
    """There is no libvirt on this machine."""


@dataclass(slots=True)
class Domain:
    """One virtual machine; None for what this hypervisor does not tell."""

    name: str
    state: str = STATES[0]
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    memory_max_bytes: int | None = None
    resident_bytes: int | None = None
    vcpus: int | None = None


def parse_stats(text: str) -> list[Domain]:
    """Parse ``virsh domstats --raw``; fields that are unknown or no numbers are skipped."""
    found: list[Domain] = []
    for line in text.splitlines():
        if line.startswith(_DOMAIN):
            name = line.removeprefix(_DOMAIN).removesuffix("'")
            found.append(Domain(clean(name, limit=_NAME_LENGTH)))
            continue
        key, _, value = line.strip().partition("=")
        if found and value.isascii() and value.isdecimal():
            _set(found[-1], key, int(value))
    return found


def _set(domain: Domain, key: str, number: int) -> None:
    match key:
        case "state.state":
            domain.state = STATES[number] if number < len(STATES) else STATES[0]
        case "cpu.time":
            domain.cpu_seconds = number / 1e9
        case "balloon.current":
            domain.memory_bytes = number * _KIB
        case "balloon.maximum":
            domain.memory_max_bytes = number * _KIB
        case "balloon.rss":
            domain.resident_bytes = number * _KIB
        case "vcpu.current":
            domain.vcpus = number
        case _:
            pass


def parse_list(text: str) -> list[Domain]:
    """Parse the table of ``virsh list --all``."""
    found = []
    for line in text.splitlines():
        # Columns stand two spaces apart or more; a name may hold as many, a state does not.
        words = line.split(None, 1)
        name, gap, state = words[-1].rstrip().rpartition("  ") if words else ("", "", "")
        state = _LISTED.get(state.strip(), state.strip())
        if gap and state in STATES:
            found.append(Domain(clean(name.strip(), limit=_NAME_LENGTH), state))
    return found


@dataclass(slots=True)
class Libvirt:
    """The libvirt of the machine, which is only read."""

    run: Callable[..., Done] = run

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one; which libvirt it is is told at each question."""
        return cls()

    def domains(self, uri: str) -> list[Domain]:
        """Give every domain, by name.

        Raises MissingError, NotRunningError, UnavailableError.
        """
        done = self._ask(uri, *_STATS)
        if done.code == 0:
            found = parse_stats(done.output.decode("utf-8", "replace"))
        elif "not supported by the connection driver" in done.error:
            done = self._ask(uri, "list", "--all")
            found = parse_list(done.output.decode("utf-8", "replace"))
        if done.code:
            reason = done.error.strip().replace("\n", " ")[:300]
            if "No such file or directory" in reason:
                raise NotRunningError(f"there is no libvirt: {reason}")
            raise UnavailableError(f"virsh failed: {reason}")
        return sorted(found, key=lambda each: each.name)

    def _ask(self, uri: str, *words: str) -> Done:
        return self.run(
            ("virsh", "--quiet", "--readonly", f"--connect={uri}", *words),
            timeout_seconds=_SECONDS,
        )
