"""SECURITY.md 61: no field of a container that equals root can be said, however it is spelt."""

from typing import Any

import pytest
from pydantic import ValidationError

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.engines import OPERATIONS, checked
from narthex_exporter.actor.runner import RunnerError
from narthex_exporter.contract.steps import EngineCall

BASE = {"container": "web", "image": "web:1"}
FORBIDDEN = (
    "privileged", "binds", "mounts", "devices", "device_requests", "cap_add", "security_opt",
    "pid_mode", "ipc_mode", "uts_mode", "userns_mode", "network_mode", "cgroup_parent",
    "cgroupns_mode", "volumes_from", "volume_driver", "tmpfs", "sysctls", "runtime", "entrypoint",
    "group_add", "oom_kill_disable", "oom_score_adj", "publish_all_ports", "links", "extra_hosts",
    "dns", "log_config", "storage_opt", "init", "host_config", "masked_paths", "readonly_paths",
    "device_cgroup_rules", "isolation", "healthcheck", "stop_signal", "working_dir", "hostname",
    "mac_address",
)  # fmt: skip


def _spellings(name: str) -> tuple[str, ...]:
    camel = "".join(part.capitalize() for part in name.split("_"))
    return name, name.upper(), camel, camel[0].lower() + camel[1:], name.replace("_", "-")


FIELDS = sorted({spelling for name in FORBIDDEN for spelling in _spellings(name)})
VALUES: dict[str, tuple[Any, ...]] = {
    "volumes": (
        "/:/host", "/etc:/etc:rw", "../x:/y", "./x:/y", "~:/y", "a b:/y", "data:/y/../z", "data:y",
        "data:/", "data:/x:rw", "data:/x:ro,z", "data:/x:shared", "data:/a:/b",
        "/run/docker.sock:/s",
        "npipe:////./pipe/x:/y", "data:/x\n/:/host", "data", ":/x", "",
    ),
    "networks": ("container:db", "service:db", "ns:/proc/1/ns/net", "/proc/1/ns/net", "", "a/b"),
    "ports": (
        "80", "8080:80", "0:80/tcp", "127.0.0.1:0:80/tcp", "127.0.0.1:70000:80/tcp",
        "::1:80:80/tcp",
        "127.0.0.1:80:80/sctp", "127.0.0.1:8000-9000:80/tcp", "eth0:80:80/tcp", "127.0.0.1:80:80",
    ),
    "labels": (
        "com.docker.compose.project=x", "com.docker.compose.project.config_files=/etc/cron.d/x",
        "io.podman.x=y", "io.containers.autoupdate=registry", "Com.docker.x=y", "novalue", "=x",
    ),
    "env": ("novalue", "=x", "A\x00=b", "1A=b", "A B=c"),
    "image": ("/bin/sh", "--privileged", "a b", "", "host:/", "file:///x"),
    "user": ("root --privileged", "-1", "a:b:c", "a\n", "$(id)"),
    "restart": ("always:5", "ALWAYS", "never", 1),
    "read_only": ("no", 1, 0),
    "drop_capabilities": ("ALL", 1),
    "command": ("sh -c id", "x\x00"),
    "pids": (-1, 1.5, "many"),
    "cpus": (-1, "nan", "inf", 5000),
    "memory_mib": (-1, "64m"),
}  # fmt: skip


def _refused(name: str, params: dict[str, Any]) -> bool:
    try:
        CATALOGUE[name].params.model_validate({**BASE, **params})
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("name", ["container.create", "container.run", "container.update"])
def test_no_other_field_is_taken_however_it_is_spelt(name: str) -> None:
    assert len(FIELDS) > 120
    values: tuple[Any, ...] = (True, None, "", [], {}, ["/:/host"], "host", 0)
    taken = [
        (field, value)
        for field in FIELDS
        for value in values
        if not _refused(name, {field: value})
    ]
    assert taken == []


@pytest.mark.parametrize("name", ["container.create", "container.run"])
def test_no_value_says_what_no_field_may(name: str) -> None:
    lists = {"volumes", "networks", "ports", "labels", "env"}
    taken = [
        (field, value)
        for field, values in VALUES.items()
        for value in values
        if not _refused(name, {field: [value] if field in lists else value})
    ]
    assert taken == []
    nulls = [field for field in VALUES if not _refused(name, {field: None})]
    assert nulls == []


def test_what_is_asked_of_an_engine_is_in_a_table() -> None:
    for operation in (
        "container.exec",
        "plugin.install",
        "swarm.init",
        "system.prune",
        "__class__",
    ):
        with pytest.raises(RunnerError):
            checked(EngineCall(engine="docker", operation=operation, target="x"))
    for operation, known in OPERATIONS.items():
        for field in FIELDS:
            call = EngineCall(
                engine="docker",
                operation=operation,
                target="x" if known.has_target else "",
                options=((field, True),),
            )
            with pytest.raises(RunnerError):
                checked(call)
