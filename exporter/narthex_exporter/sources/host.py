"""Read what machine and system this is."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from narthex_exporter.contract.facts import HostFact
from narthex_exporter.sources.text import clean

# What firmware calls itself, lower case, and the hypervisor that it means.
_FIRMWARE: Final = (
    ("qemu", "qemu"),
    ("kvm", "kvm"),
    ("vmware", "vmware"),
    ("virtualbox", "virtualbox"),
    ("microsoft corporation virtual", "hyper-v"),
    ("xen", "xen"),
    ("amazon ec2", "amazon"),
    ("google compute engine", "google"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine as told below ``root``."""

    root: Path = Path("/")

    def get(self) -> HostFact:
        """Describe the machine; what cannot be read is empty."""
        release = parse_os_release(
            self._read("etc/os-release") or self._read("usr/lib/os-release")
        )
        name = platform.uname()
        return HostFact(
            hostname=clean(name.node, limit=253),
            os_name=release.get("NAME", ""),
            os_version=release.get("VERSION_ID", ""),
            kernel=clean(name.release, limit=128),
            architecture=name.machine,
            virtualization=self._virtualization(),
            cpus=os.cpu_count() or 0,
            memory_bytes=self._number("proc/meminfo", "MemTotal:") * 1024,
            boot_id=self._read("proc/sys/kernel/random/boot_id").strip(),
            boot_seconds=float(self._number("proc/stat", "btime")),
        )

    def _virtualization(self) -> str:
        container = self._read("run/systemd/container").strip()
        if container:
            return clean(container, limit=32)
        if (self.root / ".dockerenv").exists():
            return "docker"
        firmware = " ".join(
            self._read(f"sys/class/dmi/id/{name}").strip()
            for name in ("sys_vendor", "product_name")
        ).lower()
        for words, hypervisor in _FIRMWARE:
            if words in firmware:
                return hypervisor
        flags = (line for line in self._read("proc/cpuinfo").splitlines() if "flags" in line)
        return "unknown hypervisor" if "hypervisor" in next(flags, "").split() else "none"

    def _number(self, file: str, word: str) -> int:
        for line in self._read(file).splitlines():
            if line.split()[:1] == [word]:
                return int(line.split()[1])
        return 0

    def _read(self, file: str) -> str:
        try:
            return (self.root / file).read_text(errors="replace")
        except OSError:
            return ""


def parse_os_release(text: str) -> dict[str, str]:
    """Parse os-release(5)."""
    found = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            found[key] = clean(value.strip("\"'"), limit=128)
    return found
