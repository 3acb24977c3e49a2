"""An engine is listed once and followed by its events; whatever it does, nobody waits for it."""

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.sources.engines import (
    Engine,
    EngineError,
    Engines,
    parse_container,
    parse_event,
)

ID = "4f" * 32


def told(**more: Any) -> dict[str, Any]:
    state = {"Status": "running", "Pid": 7, "StartedAt": "2026-11-26T10:00:00.123456789Z"}
    return {"Id": ID, "Name": "/web", "State": state, "Config": {"Image": "nginx:1"}} | more


class Fake:
    """Answers as an engine does; ``events`` writes to whoever follows."""

    def __init__(self, path: Path) -> None:
        self.answers: dict[str, Any] = {
            "/version": {"Components": [{"Name": "Engine"}]},
            "/containers/json": [{"Id": ID, "State": "running"}],
            f"/containers/{ID}/json": told(),
            "/images/json": [{}, {}],
        }
        self.asked: list[str] = []
        self.followers: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            path = peer.recv(65536).split()[1].decode().partition("?")[0]
            self.asked.append(path)
            if path == "/events":
                peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                self.followers.append(peer)
                continue
            answer = self.answers.get(path)
            if isinstance(answer, bytes):
                peer.sendall(answer)
            elif answer is None:
                peer.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")
            else:
                peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(answer).encode())
            peer.close()

    def tell(self, *events: dict[str, Any]) -> None:
        for event in events:
            self.followers[-1].sendall(json.dumps(event).encode() + b"\n")

    def hang_up(self) -> None:
        while self.followers:
            self.followers.pop().close()

    def close(self) -> None:
        # Only this wakes a thread that waits in accept(2).
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    server = Fake(tmp_path / "sock")
    yield server
    server.close()


@pytest.fixture
def engine(fake: Fake, tmp_path: Path) -> Iterator[Engine]:
    one = Engine("docker", str(tmp_path / "sock"), back_off=(0.05, 0.1))
    yield one
    one.close()


def until(true: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def event(action: str, kind: str = "container", id_: str = ID) -> dict[str, Any]:
    return {"Type": kind, "Action": action, "Actor": {"ID": id_}}


def test_it_is_listed_once_and_then_followed(fake: Fake, engine: Engine) -> None:
    engine.start()
    until(lambda: not engine.known.problem)
    assert engine.known.containers[ID].name == "web"
    assert engine.known.images == 2
    asked = len(fake.asked)
    time.sleep(0.3)
    assert len(fake.asked) == asked
    fake.answers[f"/containers/{ID}/json"] = told(Name="/new")
    fake.answers["/images/json"] = [{}]
    fake.tell(*[event("rename")] * 50, event("untag", "image", "sha256:1"))
    until(lambda: engine.known.containers[ID].name == "new" and engine.known.images == 1)
    assert len(fake.asked) == asked + 2, "events that come together are answered with one look"
    del fake.answers[f"/containers/{ID}/json"]
    fake.tell(event("destroy"))
    until(lambda: not engine.known.containers)


def test_it_is_followed_beside_a_thousand_open_files(fake: Fake, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1200), hard))
    held = [os.dup(0) for _ in range(1030)]
    engine = Engine("docker", str(tmp_path / "sock"))
    try:
        engine.start()
        until(lambda: not engine.known.problem)
    finally:
        engine.close()
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_is_followed_again_where_it_hung_up(fake: Fake, engine: Engine) -> None:
    engine.start()
    until(lambda: not engine.known.problem)
    fake.answers[f"/containers/{ID}/json"] = told(Name="/new")
    fake.hang_up()
    until(lambda: engine.known.containers[ID].name == "new" and not engine.known.problem)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.0 500 No\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n{",
        b"HTTP/1.0 200 OK\r\n\r\n[]",
        b'HTTP/1.0 200 OK\r\n\r\n{"Id":1}',
        b'HTTP/1.0 200 OK\r\n\r\n{"Id":"1","Name":"x","State":[],"Config":7}',
    ],
)
def test_nonsense_is_a_problem_and_no_end(fake: Fake, engine: Engine, answer: bytes) -> None:
    fake.answers[f"/containers/{ID}/json"] = answer
    engine.start()
    until(lambda: engine.known.problem and not engine.settling)
    assert not engine.known.containers
    fake.answers[f"/containers/{ID}/json"] = told()
    until(lambda: not engine.known.problem)


def test_what_was_told_is_kept_while_it_does_not_answer(fake: Fake, engine: Engine) -> None:
    engine.start()
    until(lambda: not engine.known.problem)
    fake.answers["/version"] = b"HTTP/1.0 503 No\r\n\r\n"
    fake.hang_up()
    until(lambda: engine.known.problem)
    assert engine.known.containers[ID].name == "web"
    assert engine.known.since > 0


def test_one_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        engines = Engines()
        began = time.monotonic()
        (known,) = engines.known({"docker": str(tmp_path / "sock")})
        assert known.problem
        assert engines.settling()
        assert time.monotonic() - began < 0.5
    engines.close()
    assert time.monotonic() - began < 3


def test_without_a_socket_there_is_no_engine_and_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    assert not Engines().known({"docker": str(tmp_path / "none")})
    assert threading.active_count() == before


def test_a_socket_that_is_not_for_us_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        # Root may connect to all of them, so the refusal itself is pretended.
        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("narthex_exporter.sources.engines._Connection.connect", refuse)
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0)
        engine = Engine("docker", str(path))
        engine.start()
        until(lambda: engine.known.problem == "permission denied")
        engine.close()


def test_a_containers_description() -> None:
    state = {"Status": "stopped", "Healthcheck": {"Status": "healthy"}, "ExitCode": 3}
    found = parse_container(told(State=state, HostConfig={"NetworkMode": "container:x"}))
    assert (found.state, found.health, found.exit_code) == ("exited", "healthy", 3)
    assert (found.own_network, found.started, found.pid) == (False, 0.0, 0)
    assert parse_container(told()).started == pytest.approx(1795687200.123456)
    never = {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z", "Health": None}
    assert parse_container(told(State=never)).started == 0


@pytest.mark.parametrize("data", [None, [], {}, {"Id": ID}, told(State=None)])
def test_no_description(data: Any) -> None:
    with pytest.raises(EngineError):
        parse_container(data)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"Type":"container","Action":"start","Actor":{"ID":"a"}}', ("container", "a")),
        (b'{"Type":"container","status":"died","id":"a"}', ("container", "a")),
        (b'{"Type":"image","Action":"pull"}', ("image", "")),
        (b'{"Type":"container","Action":"exec_start: x","Actor":{"ID":"a"}}', None),
        (b'{"Type":"network","Action":"connect","Actor":{"ID":"a"}}', None),
        (b'{"Type":"container","Action":"die","Actor":{"ID":7}}', None),
        (b'{"Type":"container","Actor":[]}', None),
        (b"[]", None),
        (b"\xff{", None),
        (b"\r", None),
    ],
)
def test_events(line: bytes, found: tuple[str, str] | None) -> None:
    assert parse_event(line) == found
