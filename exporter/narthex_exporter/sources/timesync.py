"""Ask whoever keeps the clock whether it is right."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.programs import Done, MissingError, run

# See adjtimex(2): what it gives while the clock is not synchronized.
_TIME_ERROR: Final = 5
# struct timex is 208 bytes on 64 bits; "modes" of nought changes nothing.
_TIMEX_BYTES: Final = 256
_CHRONYC: Final = ("chronyc", "-n", "-c", "tracking")
_NTPQ: Final = ("ntpq", "-n", "-c", "rv 0 leap,stratum,offset")
# The columns of `chronyc -c tracking`, in the order of chronyc(1)'s description.
_STRATUM, _REFERENCE_TIME, _SYSTEM_TIME, _LEAP = 2, 3, 4, 13
_NOT_SYNCHRONISED: Final = "Not synchronised"
_NTP_ALARM: Final = 3
_UNSYNCHRONISED_STRATUM: Final = 16
_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """What one keeper of the clock says; None for what it does not say.

    ``last`` is when it was told the time last, in unixtime; ``offset`` has no sign.
    """

    source: str
    synchronized: bool
    last: float | None = None
    offset: float | None = None


def parse_chronyc(text: str) -> Keeper:
    """Parse ``chronyc -c tracking``. Raises ValueError."""
    words = text.strip().split(",")
    if len(words) <= _LEAP:
        raise ValueError("chronyc printed no tracking report")
    stratum = int(words[_STRATUM])
    last = float(words[_REFERENCE_TIME])
    synchronized = words[_LEAP] != _NOT_SYNCHRONISED and stratum > 0
    return Keeper(
        source="chrony",
        synchronized=synchronized,
        last=last or None,
        offset=abs(float(words[_SYSTEM_TIME])) if synchronized else None,
    )


def parse_ntpq(text: str) -> Keeper:
    """Parse ntpq's system variables; its offset is in milliseconds. Raises ValueError."""
    found = {}
    for part in text.replace("\n", ",").split(","):
        key, equals, value = part.strip().partition("=")
        if equals:
            found[key] = value
    if "leap" not in found or "stratum" not in found:
        raise ValueError("ntpq printed no system variables")
    # The reference ntpd writes two bits, NTPsec a number.
    leap = int(found["leap"], 2 if len(found["leap"]) > 1 else 10)
    synchronized = leap != _NTP_ALARM and int(found["stratum"]) < _UNSYNCHRONISED_STRATUM
    offset = abs(float(found["offset"])) / 1e3 if "offset" in found else None
    return Keeper(
        source="ntpd", synchronized=synchronized, offset=offset if synchronized else None
    )


def kernel_synchronized() -> bool:
    """Tell whether the kernel believes that somebody keeps its clock right. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    return bool(state != _TIME_ERROR)


@dataclass(slots=True)
class Timesync:
    """The daemons of the machine below ``root`` that may keep its clock."""

    root: Path = Path("/")
    run: Callable[..., Done] = run
    kernel: Callable[[], bool] = kernel_synchronized

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own daemons."""
        return cls(paths.root)

    def keepers(self) -> Iterator[Keeper]:
        """Give what each says that is there; the kernel always is. Raises UnavailableError."""
        yield Keeper(source="kernel", synchronized=self.kernel())
        timesyncd = self._timesyncd()
        if timesyncd is not None:
            yield timesyncd
        for source, argv, parse in (
            ("chrony", _CHRONYC, parse_chronyc),
            ("ntpd", _NTPQ, parse_ntpq),
        ):
            try:
                done = self.run(argv, timeout_seconds=_SECONDS)
                yield parse(done.output.decode("utf-8", "replace"))
            except MissingError:
                continue
            except ValueError:
                # Its daemon does not answer, so it keeps no clock.
                yield Keeper(source=source, synchronized=False)

    def _timesyncd(self) -> Keeper | None:
        folder = self.root / "run/systemd/timesync"
        if not folder.is_dir():
            return None
        try:
            # Touched at each synchronization; see systemd-timesyncd.service(8).
            last = (folder / "synchronized").stat().st_mtime
        except OSError:
            return Keeper(source="systemd-timesyncd", synchronized=False)
        return Keeper(source="systemd-timesyncd", synchronized=True, last=last)
