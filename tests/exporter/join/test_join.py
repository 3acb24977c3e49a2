import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from narthex_exporter.actor.authority import load_authority
from narthex_exporter.app import build
from narthex_exporter.collectors.spec import Metric
from narthex_exporter.config import Config
from narthex_exporter.contract.enrolment import JoinToken
from narthex_exporter.errors import UnavailableError
from narthex_exporter.join import JoinError, State, renew, repair
from narthex_exporter.renewal import KEYS, RENEWALS, Renewer
from narthex_exporter.transport.identity import Role, identify
from narthex_exporter.transport.keys import load_key, public_key_info
from narthex_exporter.transport.tls import TLSFiles, server_context
from narthex_operator.services.access import local_actor
from rig import until


def narthex_join(
    api: Any, home: Path, *more: str, pin: str = "", token: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    if not (pin and token):
        join = api.add()
        pin, token = join.ca_pin, join.token
    return subprocess.run(
        [sys.executable, "-Im", "narthex_exporter", "join", "--operator", api.url,
         "--ca-pin", pin, "--state.dir", str(home), *more],
        input=token, text=True, capture_output=True, check=False, timeout=60,
        env={"PATH": "/usr/bin", **environment},
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def joined(api: Any, home: Path) -> Path:
    done = narthex_join(api, home)
    assert done.returncode == 0, done.stderr
    return home


def certificate(home: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((home / "pki" / "node.pem").read_bytes())


def test_a_joined_node_has_all_that_it_needs(api: Any, joined: Path, tmp_path: Path) -> None:
    about = json.loads((joined / "node.json").read_text())
    assert set(about) == {"id", "name", "cluster", "operator_url", "gateway_url", "generation"}
    files = TLSFiles(
        cert=joined / "pki" / "node.pem", key=joined / "pki" / "node.key",
        ca=joined / "pki" / "ca.pem",
    )  # fmt: skip
    assert server_context(files)
    der = certificate(joined).public_bytes(_der())
    found = identify(der, cluster=about["cluster"])
    assert (found.role, found.id) == (Role.NODE, about["id"])
    (tmp_path / "actor").mkdir()
    assert len(load_authority(joined, tmp_path / "actor").keys) == 2
    assert (joined / "pki" / "node.key").stat().st_mode & 0o077 == 0


def _der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def test_it_tells_the_words_that_the_operator_shows(api: Any, home: Path) -> None:
    done = narthex_join(api, home)
    words = api.nodes.get(local_actor("t"), "web-1").fingerprint
    assert len(words.split()) == 6
    assert words in done.stdout
    assert "approve" in done.stdout


def test_a_wrong_pin_ends_it_before_anything_is_said(api: Any, home: Path) -> None:
    join = api.add()
    done = narthex_join(api, home, pin="sha256:" + "0" * 64, token=join.token)
    assert done.returncode == 1
    assert "pin" in done.stderr
    assert api.seen == [b"/pki/ca.pem "]
    secret = JoinToken.parse(join.token).secret.encode()
    assert not any(secret in path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_the_secret_never_crosses_the_wire_nor_reaches_a_file(
    api: Any, home: Path, tmp_path: Path
) -> None:
    join = api.add()
    done = narthex_join(api, home, pin=join.ca_pin, token=join.token)
    secret = JoinToken.parse(join.token).secret.encode()
    assert done.returncode == 0
    assert not any(secret in request for request in api.seen)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(secret in path.read_bytes() for path in files)
    assert secret.decode() not in done.stdout + done.stderr


def test_the_environment_diverts_nothing(api: Any, home: Path, tmp_path: Path) -> None:
    hostile = {"HTTPS_PROXY": "http://127.0.0.1:1", "SSL_CERT_FILE": str(tmp_path / "none"),
               "REQUESTS_CA_BUNDLE": str(tmp_path / "none"), "HOME": str(tmp_path)}  # fmt: skip
    done = narthex_join(api, home, **hostile)
    assert done.returncode == 0, done.stderr


def test_a_node_joins_again_only_by_force(api: Any, joined: Path) -> None:
    before = certificate(joined)
    second = api.add("web-2")
    refused = narthex_join(api, joined, pin=second.ca_pin, token=second.token)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert certificate(joined) == before
    forced = narthex_join(api, joined, "--force", pin=second.ca_pin, token=second.token)
    assert forced.returncode == 0, forced.stderr
    assert json.loads((joined / "node.json").read_text())["name"] == "web-2"


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("nonsense", "join token is not one"),
        ("nj1.n000000000000." + "A" * 43, "token is wrong"),
        ("used", "used"),
    ],
)
def test_a_token_that_is_no_good_is_told_in_words(
    api: Any, home: Path, tmp_path: Path, token: str, told: str
) -> None:
    join = api.add()
    if token == "used":
        token = join.token
        assert narthex_join(api, tmp_path / "x", pin=join.ca_pin, token=token).returncode == 0
    done = narthex_join(api, home, pin=join.ca_pin, token=token)
    assert done.returncode == 1
    assert told in done.stderr
    assert "what to do" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "node.json").exists()


def test_an_operator_that_is_not_there_is_told(api: Any, home: Path) -> None:
    join = api.add()
    api.url = "https://127.0.0.1:1"
    done = narthex_join(api, home, pin=join.ca_pin, token=join.token)
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_a_lost_reply_costs_nothing(api: Any, home: Path) -> None:
    join = api.add()
    api.lose_replies = 1
    assert narthex_join(api, home, pin=join.ca_pin, token=join.token).returncode == 1
    assert narthex_join(api, home, pin=join.ca_pin, token=join.token).returncode == 0


def test_a_renewal_replaces_key_and_certificate(api: Any, joined: Path) -> None:
    before = certificate(joined)
    renew(State(folder=joined))
    after = certificate(joined)
    assert public_key_info(after) != public_key_info(before)
    assert load_key(joined / "pki" / "node.key").public_key() == after.public_key()
    assert json.loads((joined / "node.json").read_text())["generation"] == 2


def test_a_renewal_whose_reply_was_lost_is_no_clone(api: Any, joined: Path) -> None:
    api.lose_replies = 1
    with pytest.raises(JoinError):
        renew(State(folder=joined))
    renew(State(folder=joined))
    assert json.loads((joined / "node.json").read_text())["generation"] == 2


def test_a_copied_folder_locks_the_node(api: Any, joined: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(joined, tmp_path / "copy")
    renew(State(folder=joined))
    with pytest.raises(JoinError, match="locked"):
        renew(State(folder=tmp_path / "copy"))
    with pytest.raises(JoinError, match="locked"):
        renew(State(folder=joined))


def test_a_crash_between_two_renames_is_mended(api: Any, joined: Path) -> None:
    pki = joined / "pki"
    old = (pki / "node.pem").read_bytes()
    renew(State(folder=joined))
    new = (pki / "node.pem").read_bytes()
    (pki / "node.pem.next").write_bytes(new)
    (pki / "node.pem").write_bytes(old)
    repair(joined)
    assert (pki / "node.pem").read_bytes() == new
    assert not (pki / "node.pem.next").exists()


def test_an_exporter_mends_an_interrupted_renewal_before_it_listens(
    api: Any, joined: Path
) -> None:
    pki = joined / "pki"
    old = (pki / "node.pem").read_bytes()
    renew(State(folder=joined))
    (pki / "node.pem").rename(pki / "node.pem.next")
    (pki / "node.pem").write_bytes(old)
    exporter = build(Config(listen=(("127.0.0.1", 0),), state_dir=joined))
    exporter.start()
    exporter.stop()
    assert not (pki / "node.pem.next").exists()


def told(renewer: Renewer, metric: Metric = RENEWALS) -> dict[str, float]:
    return {s.values[0]: s.value for s in renewer.samples() if s.metric is metric}


def test_the_renewer_renews_at_half_life(api: Any, joined: Path) -> None:
    before = certificate(joined)
    later = datetime.now(tz=UTC) + timedelta(days=3, hours=22)
    idle = Renewer(joined)
    assert timedelta(days=3).total_seconds() < idle.due_in_seconds() < 4 * 86400
    renewer = Renewer(joined, clock=later.timestamp, jitter=lambda low, _high: low)
    assert renewer.due_in_seconds() == 0
    late = [later.timestamp()]
    renewer = Renewer(joined, clock=lambda: late[0])
    renewer.start()
    deadline = time.monotonic() + 10
    while certificate(joined) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    late[0] = time.time()
    renewer.stop()
    assert certificate(joined) != before
    assert told(renewer)["success"] >= 1


def test_a_renewal_that_fails_is_counted_and_told_in_words(
    joined: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about = json.loads((joined / "node.json").read_text())
    (joined / "node.json").write_text(json.dumps(about | {"operator_url": "https://127.0.0.1:9"}))
    before = certificate(joined)
    later = time.time() + 4 * 86400
    renewer = Renewer(joined, clock=lambda: later)
    renewer.start()
    deadline = time.monotonic() + 20
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.05)
    renewer.stop()
    assert told(renewer) == {"success": 0, "failure": 1}
    assert "the operator does not answer at https://127.0.0.1:9" in caplog.records[0].error  # type: ignore[attr-defined]
    assert certificate(joined) == before


def test_a_renewer_of_no_node_does_nothing(tmp_path: Path) -> None:
    renewer = Renewer(tmp_path)
    renewer.start()
    renewer.stop()
    assert list(renewer.samples())


@dataclass
class Fetches:
    """Counts fetches of keys; fails as told."""

    count: int = 0
    fails: bool = False

    def __call__(self, _folder: Path) -> None:
        self.count += 1
        if self.fails:
            raise UnavailableError("the gateway does not answer")


def test_ticket_keys_are_fetched_at_the_start_and_every_hour(joined: Path) -> None:
    now, fetches = [1000.0], Fetches()
    renewer = Renewer(joined, fetch_keys=fetches, monotonic=lambda: now[0])
    renewer.start()
    until(lambda: fetches.count == 1)
    renewer.stop()
    assert told(renewer, KEYS) == {"success": 1, "failure": 0}
    wait = renewer._look_at_keys()
    assert (fetches.count, 3200 < wait <= 3600) == (1, True)
    now[0] += 3600
    renewer._stopping.clear()
    renewer._look_at_keys()
    assert fetches.count == 2


def test_a_fetch_that_fails_is_tried_again_later_and_later(joined: Path) -> None:
    now, fetches = [1000.0], Fetches(fails=True)
    renewer = Renewer(
        joined, fetch_keys=fetches, monotonic=lambda: now[0], jitter=lambda _low, high: high
    )
    waits = []
    for _ in range(6):
        waits.append(renewer._look_at_keys())
        now[0] += waits[-1]
    assert waits == pytest.approx([5.5, 22, 88, 352, 660, 660])
    assert told(renewer, KEYS) == {"success": 0, "failure": 6}
    fetches.fails = False
    assert renewer._look_at_keys() > 3000


class Older:
    """A signer that publishes what it published first."""

    def __init__(self, signer: Any, document: bytes) -> None:
        self.signer, self.document = signer, json.loads(document)

    def ticket_keys(self) -> Any:
        return self.document

    def __getattr__(self, name: str) -> Any:
        return getattr(self.signer, name)


def test_older_keys_do_not_cost_a_node_its_certificate(
    api: Any, joined: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = joined / "tickets.json"
    first = path.read_bytes()
    api.nodes.signer.rotate(force=True)
    renew(State(folder=joined))
    assert json.loads(path.read_text())["version"] == 2
    kept = path.read_bytes()
    api.nodes.signer = Older(api.nodes.signer, first)
    before = certificate(joined)
    renew(State(folder=joined))
    assert certificate(joined) != before
    assert path.read_bytes() == kept
    told = [one.message for one in caplog.records if one.message.startswith("keys.")]
    assert told == ["keys.not-kept"]
