import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.exporter.actions.conftest import pretended
from tests.exporter.actor.conftest import Enrolled, Sleeper, running

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.commands import actor
from narthex_exporter.actor.policy import Policy, PolicyError, load_policy, parse_policy
from narthex_exporter.contract.tickets import Approval, Claims
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


# What no list of actions that equal root is needed for.
PLAIN = {
    name
    for name, action in CATALOGUE.items()
    if action.family in {"process", "service"} and not action.root_equivalent
}
NOTICED = {
    "process.restart", "process.signal", "process.start", "process.terminate",
    "service.create-timer", "service.edit-timer", "service.remove-timer", "service.restart",
    "service.stop",
}  # fmt: skip


@pytest.mark.parametrize(
    ("ceiling", "allowed"),
    [
        ("off", set()),
        ("safe", {"service.daemon-reload", "service.reload", "service.reset-failed"}),
        ("reversible", PLAIN - NOTICED),
        ("disruptive", PLAIN),
        ("destructive", PLAIN),
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
        ("{deny: ['sshd.service']}", "ssh.service", True),
        ("{deny: ['sshd.service']}", "ssh.socket", True),
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


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("approved", "enough"),
    [
        ((), False),
        ((("user:2", 0),), False),
        ((("user:2", 0), ("user:3", -60)), True),
        ((("user:2", 0), ("user:2", 0)), False),
        ((("user:1", 0), ("user:2", 0)), False),
        ((("user:2", 0), ("user:3", -901)), False),
        ((("user:2", 0), ("user:3", 121)), False),
        ((("user:2", 0), ("user:3", 119)), True),
    ],
)
def test_only_other_people_in_time_count_as_approvals(
    approved: tuple[tuple[str, int], ...], *, enough: bool
) -> None:
    policy = parse_policy(
        f"{BASE}require_approvals: {{disruptive: 2}}\n".encode(), name="policy.yaml"
    )
    claims = Claims(
        iss="c", aud="node:n", sub="user:1", act="process.signal", htm="POST", htu="/", ph="",
        op="", jti="", inst="", nonce="", iat=0, nbf=0, exp=0,
        apr=tuple(
            Approval(user=user, at=int(NOW) + age, id=str(number))
            for number, (user, age) in enumerate(approved)
        ),
    )  # fmt: skip
    action = CATALOGUE["process.signal"]
    if enough:
        policy.judge_approvals(action, claims, now=NOW)
    else:
        with pytest.raises(PolicyError, match="wants 2 other people to approve"):
            policy.judge_approvals(action, claims, now=NOW)
    policy.judge_approvals(CATALOGUE["process.renice"], claims, now=NOW)


def test_the_summary_tells_every_section_as_the_file_writes_it() -> None:
    text = (
        BASE
        + "service: {deny: ['ssh*'], allow: ['nginx.service']}\nprocess: {protect_users: [root]}\n"
        + "rate: {disruptive: 10/min}\nrequire_approvals: {destructive: 2}\n"
    )
    told = parse_policy(text.encode(), name="test").summary()
    assert told["service"] == {"deny": ["ssh*"], "allow": ["nginx.service"]}
    assert told["process"]["protect_users"] == ["root"]
    assert told["rate"] == {"disruptive": "10/min"}
    assert told["require_approvals"] == {"destructive": 2}
    assert told["danger"] == {"process": "disruptive", "service": "disruptive"}
    sections = set(Policy.model_fields) - {"version"}
    assert set(told) == sections


def test_a_policy_is_told_to_programs_with_what_it_allows(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("version: 1\nmode: manage\ndanger: {process: reversible}\n")
    done = CliRunner().invoke(actor, ["check-policy", "--json", str(file)])
    told = json.loads(done.output)
    assert {name for name, may in told["actions"].items() if may} == {"process.renice"}
    assert set(told["actions"]) == set(CATALOGUE)


def test_words_say_how_many_people_must_approve() -> None:
    text = BASE + "require_approvals: {disruptive: 1, destructive: 2}\n"
    lines = parse_policy(text.encode(), name="test").explain()
    assert "What is disruptive needs the approval of one other person." in lines
    assert "What is destructive needs the approval of 2 other people." in lines
    assert "Of these, equal to root access: none." in lines


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
