"""SECURITY.md 2.5: which containers, images, volumes and networks a policy lets be touched."""

from typing import Any

import pytest
from tests.exporter.actions.conftest import pretended

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.policy import PolicyError, parse_policy

EVERYTHING = (
    b"version: 1\nmode: manage\ndanger: {container: destructive, image: destructive,"
    b" volume: destructive, container-network: destructive, compose: disruptive}\n"
)
FACTS = {
    "containers": [
        {"name": "web-1", "project": "shop", "id": "a" * 64},
        {"name": "db-1", "id": "b" * 64},
    ],
    "images": [
        {"id": "sha256:" + "1" * 64, "tags": ["registry.example.org/a:1"]},
        {"id": "sha256:" + "2" * 64, "tags": ["evil.example.org/a:1"]},
        {"id": "sha256:" + "3" * 64},
    ],
    "volumes": [{"name": "data", "project": "shop"}, {"name": "spare"}],
    "networks": [{"name": "front"}],
}


def allowed(section: bytes, name: str, params: dict[str, Any]) -> bool:
    policy = parse_policy(EVERYTHING + b"container: " + section + b"\n", name="p")
    action = CATALOGUE[name]
    try:
        policy.judge(action, action.params.model_validate(params), pretended(FACTS))
    except PolicyError:
        return False
    return True


@pytest.mark.parametrize(
    ("section", "name", "params", "is_allowed"),
    [
        (b"{}", "container.stop", {"container": "web-1"}, True),
        (b"{deny: ['web-*']}", "container.stop", {"container": "web-1"}, False),
        (b"{deny: ['web-*']}", "container.stop", {"container": "db-1"}, True),
        (b"{deny: [shop]}", "container.stop", {"container": "web-1"}, False),
        (b"{deny: [aaaaaaaaaaaa]}", "container.stop", {"container": "web-1"}, False),
        (b"{allow: [web-1]}", "container.stop", {"container": "web-1"}, True),
        (b"{allow: [web-1]}", "container.stop", {"container": "db-1"}, False),
        (b"{allow: []}", "container.stop", {"container": "db-1"}, False),
        (b"{deny: ['db*']}", "container.rename", {"container": "web-1", "name": "db"}, False),
        (b"{deny: [data]}", "volume.remove", {"volume": "data"}, False),
        (b"{deny: [shop]}", "volume.remove", {"volume": "data"}, False),
        (b"{deny: [data]}", "volume.prune", {"named": True}, False),
        (b"{deny: [other]}", "volume.prune", {"named": True}, True),
        (b"{deny: [front]}", "container-network.prune", {}, False),
        (b"{deny: [front]}", "container-network.connect",
         {"network": "front", "container": "db-1"}, False),
        (b"{deny: [data]}", "container.create",
         {"container": "x", "image": "a", "volumes": ["data:/x"]}, False),
        (b"{deny: [front]}", "container.create",
         {"container": "x", "image": "a", "networks": ["front"]}, False),
    ],
)  # fmt: skip
def test_names_are_denied_and_allowed(
    section: bytes, name: str, params: dict[str, Any], *, is_allowed: bool
) -> None:
    assert allowed(section, name, params) is is_allowed


@pytest.mark.parametrize(
    ("image", "is_allowed"),
    [
        ("registry.example.org/a:1", True),
        ("registry.example.org/a", True),
        ("nginx", True),
        ("docker.io/library/nginx:1", True),
        ("index.docker.io/library/nginx:1", True),
        ("someone/nginx", False),
        ("registry.example.org.evil.example/a", False),
        ("evil.example.org/registry.example.org/a", False),
        ("evil.example.org/a:1", False),
        ("localhost/a", False),
        ("sha256:" + "1" * 64, True),
        ("sha256:" + "2" * 64, False),
        ("sha256:" + "3" * 64, False),
    ],
)
def test_images_come_from_the_registries_that_are_named(image: str, *, is_allowed: bool) -> None:
    section = b'{registries: ["registry.example.org/", "docker.io/library/"]}'
    for name in ("image.pull", "container.create", "container.run"):
        params = {"image": image} if name == "image.pull" else {"image": image, "container": "x"}
        assert allowed(section, name, params) is is_allowed, name
    # Nor does another name make it an image of that registry.
    tag = {"image": image, "name": "registry.example.org/b:1"}
    assert allowed(section, "image.tag", tag) is is_allowed
    assert allowed(b"{}", "image.tag", tag)
    assert allowed(section, "image.remove", {"image": image})


def test_the_policy_says_so_in_words() -> None:
    text = EVERYTHING + b"container: {deny: [db], allow: [web], registries: ['r.example.org/']}\n"
    told = "\n".join(parse_policy(text, name="p").explain())
    assert "Containers, volumes, networks and projects, these only: web." in told
    assert "Containers, volumes, networks and projects denied: db." in told
    assert "Images may come from: r.example.org/." in told


@pytest.mark.parametrize(
    ("section", "is_allowed"),
    [
        (b"{}", True),
        (b"{deny: ['db*']}", False),
        (b"{deny: [bbbbbbbbbbbb]}", False),
        (b"{deny: ['web*']}", True),
        (b"{allow: [web-1]}", True),
    ],
)
def test_the_processes_of_a_protected_container_are_protected_by_its_name(
    section: bytes, *, is_allowed: bool
) -> None:
    text = b"version: 1\nmode: manage\ndanger: {process: disruptive}\ncontainer: " + section
    policy, action = parse_policy(text, name="p"), CATALOGUE["process.signal"]
    inside = {"pid": 42, "start_ticks": 7, "owner_container": "b" * 12}
    facts = pretended({**FACTS, "processes": [inside]})
    params = action.params.model_validate({"pid": 42, "start_ticks": 7})
    if is_allowed:
        policy.judge(action, params, facts)
    else:
        with pytest.raises(PolicyError, match="process 42 runs in it"):
            policy.judge(action, params, facts)
