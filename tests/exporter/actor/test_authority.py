"""SECURITY.md 11: without everything that proves who may ask, nothing listens."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.exporter.actor.conftest import (
    CLUSTER,
    Client,
    Enrolled,
    actor_process,
    running,
    until_listening,
)

from narthex_exporter.actor.app import build
from narthex_exporter.actor.authority import load_authority
from narthex_exporter.errors import ConfigError, NarthexError


def without(name: str) -> Callable[[Enrolled], None]:
    return lambda enrolled: (enrolled.home / name).unlink()


def holding(name: str, text: str) -> Callable[[Enrolled], None]:
    def write(enrolled: Enrolled) -> None:
        (enrolled.home / name).write_text(text)

    return write


def keys(**changes: Any) -> Callable[[Enrolled], None]:
    return lambda enrolled: enrolled.write_keys(**{"version": 1, **changes})


def mode(name: str, bits: int) -> Callable[[Enrolled], None]:
    return lambda enrolled: (enrolled.home / name).chmod(bits)


def signed_by_another_ca(enrolled: Enrolled) -> None:
    enrolled.ca_key = ec.generate_private_key(ec.SECP256R1())
    enrolled.write_keys(version=1)


def altered_key(enrolled: Enrolled) -> None:
    document = json.loads((enrolled.home / "tickets.json").read_text())
    document["keys"][0]["kid"] = "k2"
    (enrolled.home / "tickets.json").write_text(json.dumps(document))


def two_certificates(enrolled: Enrolled) -> None:
    ca = enrolled.home / "pki" / "ca.pem"
    ca.write_bytes(ca.read_bytes() * 2)


def open_state(enrolled: Enrolled) -> None:
    enrolled.config.state_dir.mkdir(mode=0o755)


BROKEN: dict[str, tuple[Callable[[Enrolled], None], str]] = {
    "no node.json": (without("node.json"), "cannot read"),
    "no CA": (without("pki/ca.pem"), "cannot read"),
    "no keys": (without("tickets.json"), "cannot read"),
    "no policy": (without("policy.yaml"), "cannot read the policy"),
    "a node.json that is none": (holding("node.json", "{}"), "is not a node's"),
    "an id with a slash": (lambda one: one.write_node(id="../x"), "is not a node's"),
    "a CA that is none": (holding("pki/ca.pem", "x"), "is not a certificate"),
    "two CAs": (two_certificates, "holds 2 certificates"),
    "keys that are no JSON": (holding("tickets.json", "{"), "no usable ticket keys"),
    "an empty key set": (keys(keys=[]), "no usable ticket keys"),
    "a key that is none": (keys(keys=[{"kid": "k", "key": "AAAA"}]), "not an Ed25519 key"),
    "keys of another cluster": (keys(cluster="f" * 16), "is for cluster"),
    "keys signed by another CA": (signed_by_another_ca, "not signed by this node's CA"),
    "an altered key": (altered_key, "not signed by this node's CA"),
    "a version that is no number": (keys(version="1"), "no usable ticket keys"),
    "a policy that others write": (mode("policy.yaml", 0o666), "can be written by others"),
    "keys that others write": (mode("tickets.json", 0o666), "can be written by others"),
    "a state folder that others read": (open_state, "must belong to the actor alone"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_actor_does_not_start_with(enrolled: Enrolled, what: str) -> None:
    break_it, words = BROKEN[what]
    break_it(enrolled)
    with pytest.raises(NarthexError, match=words), build(enrolled.config):
        pass


def test_older_keys_are_refused_also_after_a_restart(enrolled: Enrolled) -> None:
    enrolled.write_keys(version=7)
    with running(enrolled):
        pass
    enrolled.write_keys(version=6)
    with pytest.raises(ConfigError, match="older"), build(enrolled.config):
        pass


def test_newer_keys_are_taken(enrolled: Enrolled) -> None:
    with running(enrolled) as rig:
        enrolled.kid = "k2"
        assert rig.client.query("host.info").status == 401
        enrolled.write_keys(version=2)
        assert rig.client.query("host.info").status == 200
        rig.actor.reload()
        assert rig.client.query("host.info").status == 200


@pytest.mark.parametrize("what", ["ca", "node", "cluster"])
def test_the_exporter_cannot_name_another_authority(enrolled: Enrolled, what: str) -> None:
    with running(enrolled):
        pass
    if what == "ca":
        enrolled.ca_key = ec.generate_private_key(ec.SECP256R1())
        enrolled.write_ca()
    elif what == "node":
        enrolled.write_node(id="n-other")
    else:
        enrolled.write_node(cluster="f" * 16)
    cluster = CLUSTER if what != "cluster" else "f" * 16
    enrolled.write_keys(version=1, cluster=cluster)
    with pytest.raises(ConfigError, match="enrolled elsewhere"), build(enrolled.config):
        pass


def test_the_program_says_what_is_missing_and_what_to_do(enrolled: Enrolled) -> None:
    (enrolled.home / "policy.yaml").unlink()
    with actor_process(enrolled) as process:
        assert process.wait(20) == 1
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert "cannot read the policy" in said
    assert "what to do:" in said
    assert "Traceback" not in said
    assert not enrolled.config.socket.exists()


def test_the_program_listens_for_its_group_only_and_stops_when_told(enrolled: Enrolled) -> None:
    with actor_process(enrolled) as process:
        until_listening(enrolled, process)
        assert enrolled.config.socket.stat().st_mode & 0o777 == 0o660
        assert Client(enrolled).query("host.info").status == 200
        process.terminate()
        assert process.wait(10) == 0
    assert not enrolled.config.socket.exists()


def test_a_second_actor_on_the_same_folder_does_not_start(enrolled: Enrolled) -> None:
    with running(enrolled) as rig:
        with pytest.raises(ConfigError, match="another actor uses"), build(enrolled.config):
            pass
        assert rig.client.query("host.info").status == 200


def test_the_log_names_the_process_that_speaks_to_the_socket(enrolled: Enrolled) -> None:
    with actor_process(enrolled) as process:
        until_listening(enrolled, process)
        process.terminate()
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert f"msg=peer.connected peer_pid={os.getpid()} peer_uid={os.geteuid()}" in said


def test_a_hangup_makes_the_program_read_its_policy_again(enrolled: Enrolled) -> None:
    with actor_process(enrolled) as process:
        until_listening(enrolled, process)
        enrolled.write_policy("version: 1\nmode: off\n")
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while Client(enrolled).query("host.info").status != 403:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_was_seen_is_kept_where_the_exporter_cannot_write(
    enrolled: Enrolled, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    authority = load_authority(enrolled.home, state)
    assert set(authority.keys) == {"k1"}
    assert (state / "anchor.json").stat().st_mode & 0o777 == 0o600
