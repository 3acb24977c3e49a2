"""What a node with containers answers."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tests.panel.world import NOW

_ENGINES = [
    {"name": "docker", "socket": "/var/run/docker.sock", "version": "28.2.2", "problem": ""},
    {
        "name": "podman",
        "socket": "/run/podman/podman.sock",
        "version": "",
        "problem": "podman is not there: /run/podman/podman.sock: no such file or directory",
    },
]
_FILE = """\
services:
  web:
    image: registry.example.org/shop/web:2.14.3
    ports: ["0.0.0.0:443:8443"]
"""


def container(name: str, image: str, state: str = "running", **more: Any) -> dict[str, Any]:
    at = (NOW - timedelta(hours=len(name) * 7)).isoformat()
    return {
        "engine": "docker",
        "id": f"{len(name):064x}",
        "name": name,
        "image": image,
        "state": state,
        "health": "",
        "restarts": 0,
        "exit_code": 0,
        "is_oom_killed": False,
        "created_at": at,
        "started_at": at,
        "finished_at": None,
        "ports": [],
        "networks": ["shop_default"],
        "project": "shop",
        "service": name,
        "is_protected": False,
        **more,
    }


def containers(text: str) -> list[dict[str, Any]]:
    port = {"protocol": "tcp", "port": 8443, "host_address": "10.0.4.11", "host_port": 443}
    return [
        container(
            "shop-web-1", text or "registry.example.org/shop/web:2.14.3", ports=[port],
            health="healthy",
        ),
        container("shop-worker-1", "registry.example.org/shop/worker:2.14.3", "exited",
                  exit_code=137, is_oom_killed=True, restarts=4),
        container("shop-db-1", "postgres:16", is_protected=True, health="healthy"),
        container("cache", "valkey/valkey:8", health="unhealthy", project="", service=""),
        container("nightly-report", "registry.example.org/report:1", "exited", project=""),
        container(text or "tail", "busybox", "paused", project=""),
    ]  # fmt: skip


def _stats(name: str, cpu_ratio: float | None, memory_bytes: int) -> dict[str, Any]:
    return {
        "engine": "docker", "name": name, "cpu_ratio": cpu_ratio, "memory_bytes": memory_bytes,
        "memory_limit_bytes": 2 << 30, "pids": 4, "received_bytes": 1, "sent_bytes": 1,
        "read_bytes": 1, "written_bytes": 1,
    }  # fmt: skip


def answer(name: str, params: Mapping[str, Any], text: str) -> dict[str, Any] | None:
    """Answer a query of the container families; ``None`` for others."""
    listed = containers(text)
    line = {
        "container": "shop-web-1",
        "stream": "stderr",
        "at": NOW.isoformat(),
        "text": text or "connection reset by peer, retrying",
    }
    project = {
        "engine": "docker",
        "name": "shop",
        "working_dir": text or "/srv/shop",
        "files": [
            {"path": "/srv/shop/compose.yaml", "problem": "", "owner_uid": 0,
             "is_writable_by_others": False},
        ],
        "services": [
            {"name": text or "web", "containers": ["shop-web-1"], "running": 1},
            {"name": "worker", "containers": ["shop-worker-1"], "running": 0},
        ],
    }  # fmt: skip
    one = next((row for row in listed if row["name"] == params.get("container")), None)
    used = {"engine": "docker", "used_by": ["shop-db-1"], "project": "shop"}
    answers: dict[str, dict[str, Any]] = {
        "container.list": {"containers": listed, "engines": _ENGINES},
        "container.get": {"container": None}
        if one is None
        else {
            "container": {
                **one,
                "image_id": "sha256:" + "1" * 64,
                "mounts": [
                    {"kind": "volume", "source": text or "shop_data", "target": "/var/lib/app",
                     "is_writable": True},
                ],
                "labels": {"team": text or "red"},
                "cpus": 0.5,
                "memory_bytes": 512 << 20,
                "pids": 0,
                "restart_policy": "unless-stopped",
                "is_removed_at_end": False,
                "working_dir": "/srv/shop",
                "config_files": ["/srv/shop/compose.yaml"],
            },
            "command": text or "/usr/bin/web --listen 8443",
            "environment": ["TZ=UTC", "DB_PASSWORD=***"],
            "inspect": text or '{\n  "Name": "/shop-web-1"\n}',
        },
        "container.logs": {"lines": [line, {**line, "stream": "stdout"}], "searched": 2,
                           "is_cut": False, "problems": []},
        "container.stats": {
            "stats": [
                _stats("shop-web-1", 0.42, 268 << 20),
                _stats("shop-db-1", 1.27, 1900 << 20),
                # An engine without the memory controller tells of no memory.
                _stats("cache", None, 0),
            ]
        },
        "container.disk-usage": {
            "usage": [
                {"engine": "docker", "kind": kind, "count": 3, "active": 2,
                 "size_bytes": 3 << 30, "reclaimable_bytes": 1 << 30}
                for kind in ("images", "containers", "volumes", "build cache")
            ]
        },
        "image.list": {
            "engines": _ENGINES,
            "images": [
                {**used, "id": "sha256:" + "1" * 64, "tags": [text or "postgres:16"],
                 "digests": [], "size_bytes": 430 << 20, "created_at": None, "is_dangling": False},
                {**used, "id": "sha256:" + "2" * 64, "tags": [], "digests": [], "used_by": [],
                 "size_bytes": 1200 << 20, "created_at": None, "is_dangling": True},
            ],
        },
        "volume.list": {
            "engines": _ENGINES,
            "volumes": [
                {**used, "name": text or "shop_data", "driver": "local", "mountpoint": "",
                 "created_at": None, "size_bytes": 12 << 30},
                {**used, "name": "old_data", "driver": "local", "mountpoint": "", "project": "",
                 "created_at": None, "size_bytes": None, "used_by": []},
            ],
        },
        "container-network.list": {
            "engines": _ENGINES,
            "networks": [
                {**used, "id": "a" * 64, "name": text or "shop_default", "driver": "bridge",
                 "is_internal": False, "is_built_in": False, "subnets": ["172.20.0.0/16"]},
                {**used, "id": "b" * 64, "name": "bridge", "driver": "bridge", "used_by": [],
                 "is_internal": False, "is_built_in": True, "subnets": [], "project": ""},
            ],
        },
        "compose.list": {"projects": [project], "engines": _ENGINES,
                         "has_program": {"docker": True, "podman": False}},
        "compose.get": {"project": project if params.get("project") == "shop" else None},
        "compose.file": {"content": text or _FILE, "problem": ""},
        "compose.logs": {"lines": [line], "searched": 1, "is_cut": True, "problems": []},
    }  # fmt: skip
    return answers.get(name)
