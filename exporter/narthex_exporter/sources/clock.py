"""Ask the kernel how well its clock is kept: adjtimex(2), which needs no right to look."""

import ctypes
import os
from dataclasses import dataclass
from typing import Final, Self

from narthex_exporter.sources.place import Paths

_TIME_ERROR: Final = 5
_STA_NANO: Final = 0x2000
_MICRO: Final = 1e6
_NANO: Final = 1e9
# Frequencies are parts per million with 16 bits of fraction.
_SCALED_PPM: Final = 1e6 * 65536


class _Timeval(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class _Timex(ctypes.Structure):
    """``struct timex``; ``modes`` nought only asks."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timekeeping:
    """What the kernel says of its clock, in seconds, ratios and counts."""

    synchronized: bool
    offset_seconds: float
    frequency_ratio: float
    max_error_seconds: float
    estimated_error_seconds: float
    status: int
    constant: int
    tick_seconds: float
    pps_frequency_hertz: float
    pps_jitter_seconds: float
    pps_shift_seconds: int
    pps_stability_hertz: float
    pps_jitter_count: int
    pps_calibration_count: int
    pps_error_count: int
    pps_stability_count: int
    tai_seconds: int


@dataclass(slots=True)
class Clock:
    """The kernel's clock."""

    _libc: ctypes.CDLL | None = None

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet. There is one clock, whatever the paths."""
        del paths
        return cls()

    def read(self) -> Timekeeping:
        """Ask how the clock is kept. Raises OSError, PermissionError under a strict seccomp."""
        if self._libc is None:
            self._libc = ctypes.CDLL(None, use_errno=True)
        found = _Timex()
        state = self._libc.adjtimex(ctypes.byref(found))
        if state < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        unit = _NANO if found.status & _STA_NANO else _MICRO
        return Timekeeping(
            synchronized=state != _TIME_ERROR,
            offset_seconds=found.offset / unit,
            frequency_ratio=1 + found.freq / _SCALED_PPM,
            max_error_seconds=found.maxerror / _MICRO,
            estimated_error_seconds=found.esterror / _MICRO,
            status=found.status,
            constant=found.constant,
            tick_seconds=found.tick / _MICRO,
            pps_frequency_hertz=found.ppsfreq / _SCALED_PPM,
            pps_jitter_seconds=found.jitter / unit,
            pps_shift_seconds=found.shift,
            pps_stability_hertz=found.stabil / _SCALED_PPM,
            pps_jitter_count=found.jitcnt,
            pps_calibration_count=found.calcnt,
            pps_error_count=found.errcnt,
            pps_stability_count=found.stbcnt,
            tai_seconds=found.tai,
        )
