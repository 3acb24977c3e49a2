import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.exporter.actions.conftest import pretended
from tests.exporter.actor.conftest import Enrolled, Sleeper, running

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.commands import actor
from narthex_exporter.actor.policy import PolicyError, load_policy, parse_policy
from narthex_exporter.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "exporter" / "policy.example.yaml"
BASE = "version: 1\nmode: manage\ndanger: {process: disruptive, service: disruptive}\n"
UNITS = [
    {"name": "nginx.service", "aliases": ["www.service"]},
    {"name": "ssh.service", "aliases": ["sshd.service"]},
    {"name": "ssh.socket", "triggers": ("ssh.service",)},
]


def judged(text: str, name: str, params: dict[str, Any], facts: dict[str, Any]) -> str:
    action = CATALOGUE[name]
    policy = parse_policy(text.encode(), name="test")
    try:
        policy.judge(action, action.params.model_validate(params), pretended(facts))
    except PolicyError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the document"),
        ("[]", "the document"),
        ("mode: manage", "version: Field required"),
        ("version: 2\nmode: manage", "version: Input should be 1"),
        ("version: '1'\nmode: manage", "the version is the number 1"),
        ("version: true\nmode: manage", "the version is the number 1"),
        ("version: 1", "mode: Field required"),
        ("version: 1\nmode: on", "mode"),
        (BASE + "colour: red", "colour: Extra inputs are not permitted"),
        (BASE + "service: {denny: []}", "service.denny: Extra inputs"),
        ("version: 1\nmode: manage\ndanger: {services: safe}", "there is no family 'services'"),
        ("version: 1\nmode: manage\ndanger: {service: R2}", "danger.service"),
        (BASE + "root_equivalent: [terminal.rooot]", "there is no action 'terminal.rooot'"),
        (BASE + "rate: {safe: 10 per minute}", "a rate is written like 10/min"),
        (BASE + "rate: {safe: 0/min}", "a rate is written like 10/min"),
        (BASE + "mode: off", "the key mode stands there twice"),
        (BASE + "service: &a {deny: []}\nprocess: *a", "aliases are not read here"),
        (BASE + "service: {deny: ssh}", "service.deny"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system [id]", "is not YAML"),
        ("\x00", "is not YAML"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_a_wrong_policy_is_refused_and_the_wrong_part_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match="the policy test") as error:
        parse_policy(text.encode(), name="test")
    assert words in str(error.value)


def test_off_is_a_word_and_not_false() -> None:
    text = b"version: 1\nmode: off\ndanger: {service: off}"
    assert parse_policy(text, name="test").mode == "off"


NAMED = {name for name, one in CATALOGUE.items() if one.family in {"process", "service"}}


@pytest.mark.parametrize(
    ("ceiling", "allowed"),
    [
        ("off", set()),
        ("safe", {"service.reload", "service.reset-failed"}),
        ("reversible", NAMED - {"service.restart", "service.stop", "process.signal"}),
        ("disruptive", NAMED),
        ("destructive", NAMED),
    ],
)
def test_a_ceiling_bounds_the_danger_of_each_family(ceiling: str, allowed: set[str]) -> None:
    text = f"version: 1\nmode: manage\ndanger: {{process: {ceiling}, service: {ceiling}}}"
    policy = parse_policy(text.encode(), name="test")
    found = set()
    for name, action in CATALOGUE.items():
        try:
            policy.judge_action(action)
        except PolicyError:
            continue
        found.add(name)
    assert found == allowed - ({"process.renice"} if ceiling == "safe" else set())


@pytest.mark.parametrize(
    ("lists", "unit", "refused"),
    [
        ("{}", "nginx.service", False),
        ("{deny: ['ssh*']}", "nginx.service", False),
        ("{deny: ['ssh*']}", "ssh.service", True),
        ("{deny: ['sshd*']}", "sshd.service", True),
        ("{deny: ['ssh.service']}", "sshd.service", True),
        ("{deny: ['ssh.service']}", "ssh.socket", True),
        ("{allow: ['nginx.service']}", "nginx.service", False),
        ("{allow: ['nginx.service']}", "ssh.service", True),
        ("{allow: []}", "nginx.service", True),
        ("{allow: ['*'], deny: ['nginx*']}", "nginx.service", True),
        ("{deny: ['SSH*']}", "ssh.service", False),
    ],
)
def test_units_are_judged_by_every_name_they_have(lists: str, unit: str, *, refused: bool) -> None:
    text = BASE + f"service: {lists}\n"
    found = judged(text, "service.restart", {"unit": unit}, {"units": UNITS})
    assert bool(found) is refused


@pytest.mark.parametrize(
    ("lists", "fields", "refused"),
    [
        ("process: {protect_users: [root]}", {"user": "root"}, True),
        ("process: {protect_users: [root]}", {"user": "alice"}, False),
        ("process: {protect_comm: ['sshd*']}", {"comm": "sshd-session"}, True),
        ("service: {deny: ['ssh*']}", {"owner_unit": "ssh.service"}, True),
        ("service: {deny: ['*']}", {"owner_unit": ""}, False),
        ("service: {allow: []}", {"owner_unit": "nginx.service"}, False),
    ],
)
def test_processes_are_judged_by_what_they_are(
    lists: str, fields: dict[str, Any], *, refused: bool
) -> None:
    facts = {"processes": [{"pid": 42, "start_ticks": 7, **fields}]}
    params = {"pid": 42, "start_ticks": 7}
    assert bool(judged(BASE + lists, "process.signal", params, facts)) is refused


def test_a_policy_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(BASE)
    for mode in (0o664, 0o646, 0o666):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="can be written by others"):
            load_policy(file)
    file.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="can be written by others"):
        load_policy(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away: run as root")
def test_a_policy_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(BASE)
    os.chown(file, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        load_policy(file)


def test_a_policy_is_explained_in_words() -> None:
    done = CliRunner().invoke(actor, ["check-policy", str(EXAMPLE)])
    assert done.exit_code == 0
    assert "service.restart" in done.output
    assert "Units denied, their processes too: ssh*, systemd-*, dbus*." in done.output
    assert "At most 30/min runs that are disruptive." in done.output


@pytest.mark.parametrize(
    ("mode", "query", "action"), [("off", 403, 403), ("read-only", 200, 403), ("manage", 200, 200)]
)
def test_the_mode_bounds_everything(
    enrolled: Enrolled, sleeper: Sleeper, mode: str, query: int, action: int
) -> None:
    enrolled.write_policy(BASE.replace("manage", mode))
    with running(enrolled) as rig:
        assert rig.client.query("process.list").status == query
        assert rig.client.plan("process.signal", **sleeper.named).status == action
        submitted = rig.client.submit("process.signal", plan="", run_id="x", **sleeper.named)
        assert submitted.status != 202
        manifest = rig.client.call("GET", "/api/v1/manifest", act="manifest").json()
        assert manifest["policy"]["mode"] == mode
        assert {one["available"] for one in manifest["actions"]} == {mode == "manage", False}
    assert sleeper.process.poll() is None


def test_a_policy_that_turns_wrong_turns_the_actor_off(enrolled: Enrolled) -> None:
    with running(enrolled) as rig:
        enrolled.write_policy("mode: everything")
        rig.actor.reload()
        assert rig.client.query("process.list").status == 403
        enrolled.write_policy(BASE)
        rig.actor.reload()
        assert rig.client.query("process.list").status == 200


@pytest.mark.parametrize(
    ("lists", "params", "refused"),
    [
        ("{}", {"port": 22}, ""),
        ("{deny_ports: [22/tcp]}", {"port": 22}, "firewall.deny_ports: 22/tcp"),
        ("{deny_ports: [22]}", {"port": 22, "protocol": "udp"}, "firewall.deny_ports: 22"),
        ("{deny_ports: [22/tcp]}", {"port": 22, "protocol": "udp"}, ""),
        ("{deny_ports: [22/tcp]}", {"port": 20, "last_port": 30}, "firewall.deny_ports: 22/tcp"),
        ("{allow_ports: ['80*', 443]}", {"port": 8080}, ""),
        ("{allow_ports: ['80*', 443]}", {"port": 443, "protocol": "udp"}, ""),
        ("{allow_ports: ['80*', 443]}", {"port": 22}, "firewall.allow_ports"),
        ("{allow_ports: []}", {"port": 80}, "firewall.allow_ports"),
    ],
)
def test_ports_are_judged_each(lists: str, params: dict[str, Any], refused: str) -> None:
    text = f"version: 1\nmode: manage\ndanger: {{firewall: disruptive}}\nfirewall: {lists}"
    policy = parse_policy(text.encode(), name="test")
    action = CATALOGUE["firewall.open-port"]
    given = action.params.model_validate(params)
    if not refused:
        policy.judge(action, given, pretended({}))
        return
    with pytest.raises(PolicyError) as error:
        policy.judge(action, given, pretended({}))
    assert refused in str(error.value)


def test_what_concerns_every_port_needs_the_word_any() -> None:
    action = CATALOGUE["firewall.set-default-policy"]
    params = action.params.model_validate({"policy": "drop"})
    base = "version: 1\nmode: manage\ndanger: {firewall: disruptive}\nfirewall: {allow_ports: "
    parse_policy(f"{base}[any]}}".encode(), name="test").judge(action, params, pretended({}))
    with pytest.raises(PolicyError, match="port any"):
        parse_policy(f"{base}[80]}}".encode(), name="test").judge(action, params, pretended({}))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{always_allow: [{from: 10.0.0.1/8}]}", "firewall.always_allow.0.from"),
        ("{always_allow: [{from: example.org}]}", "firewall.always_allow.0.from"),
        ("{always_allow: [{from: 10.0.0.0/8, port: 0}]}", "firewall.always_allow.0.port"),
        ("{rollback_seconds: 5}", "firewall.rollback_seconds"),
        ("{rollback_seconds: 3600}", "firewall.rollback_seconds"),
        ("{deny_port: []}", "firewall.deny_port"),
    ],
)
def test_a_wrong_word_about_the_firewall_is_named(text: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.replace(".", r"\.")):
        parse_policy(f"version: 1\nmode: manage\nfirewall: {text}".encode(), name="test")
