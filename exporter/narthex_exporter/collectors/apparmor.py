"""Report whether AppArmor guards this machine, and how many profiles do."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.security import PROFILE_MODES, count_profiles

ENABLED = gauge("narthex_apparmor_enabled", "Whether AppArmor is on: 1 is, 0 is not.")
PROFILES = gauge(
    "narthex_apparmor_profiles", "Number of loaded AppArmor profiles by mode.", ("mode",)
)


@collector(name="apparmor", metrics=(ENABLED, PROFILES), privileged=True)
def collect(node: Node) -> Iterator[Sample]:
    """Report whether AppArmor guards this machine, and how many profiles do."""
    enabled = node.sys.text("module/apparmor/parameters/enabled")
    if enabled is None:
        raise NoData("this kernel has no AppArmor")
    yield ENABLED.at(int(enabled == "Y"))
    text = node.sys.text("kernel/security/apparmor/profiles")
    if text is not None:  # securityfs is mounted, and tells us
        counts = count_profiles(text)
        for mode in PROFILE_MODES:
            yield PROFILES.at(counts[mode], mode)
