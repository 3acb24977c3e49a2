"""Read what guards the kernel: SELinux, AppArmor, and what has tainted it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

# By bit; see the kernel's Documentation/admin-guide/tainted-kernels.rst.
_TAINTS: Final = (
    *("proprietary_module", "forced_module", "out_of_specification", "forced_unload"),
    *("machine_check", "bad_page", "userspace_request", "died", "overridden_acpi_table"),
    *("warning", "staging_driver", "firmware_workaround", "out_of_tree_module"),
    *("unsigned_module", "soft_lockup", "live_patched", "auxiliary"),
    *("randomized_structs", "in_kernel_test", "firmware_control"),
)
_BITS: Final = 64
_SELINUX_MODES: Final = {"enforcing": 1, "permissive": 0}
_DISABLED: Final = -1
PROFILE_MODES: Final = ("enforce", "complain", "kill", "prompt", "unconfined", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selinux:
    """SELinux' modes: 1 enforces, 0 only logs, -1 is off."""

    configured: int
    current: int


def taint_names(mask: int) -> Iterator[str]:
    """Name each flag that is set; at most one for each of 64 bits."""
    for bit in range(_BITS):
        if mask >> bit & 1:
            yield _TAINTS[bit] if bit < len(_TAINTS) else f"bit_{bit}"


def selinux(proc: Procfs, sys: Sysfs, paths: Paths) -> Selinux | None:
    """Tell how SELinux guards this machine; None where it does not, or has no policy."""
    enforce = sys.number("fs/selinux/enforce")
    if enforce is None:
        return None
    try:
        label = proc.bytes("self/attr/current").rstrip(b"\0\n")
    except OSError:
        label = b""
    # Until a policy is loaded, everything is labelled so.
    if label == b"kernel":
        return None
    return Selinux(configured=_configured(paths), current=enforce)


def _configured(paths: Paths) -> int:
    try:
        text = paths.rooted("/etc/selinux/config").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _DISABLED
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "SELINUX":
            return _SELINUX_MODES.get(value.strip().lower(), _DISABLED)
    return _DISABLED


def count_profiles(text: str) -> Counter[str]:
    """Count AppArmor's profiles by mode; each line ends in it: ``/usr/bin/man (enforce)``."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        mode = line.rstrip().rpartition(" (")[2].removesuffix(")")
        if line:
            found[mode if mode in PROFILE_MODES else "other"] += 1
    return found
