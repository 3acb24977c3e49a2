"""Carry out calls of container engines: a table of operations, each with the options it knows."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from narthex_exporter.actor.runner import Progress, RunnerError
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.steps import EngineCall
from narthex_exporter.contract.wire import RunState
from narthex_exporter.sources.containerengines import SOCKETS
from narthex_exporter.sources.enginewire import connect, cut, judged, telling
from narthex_exporter.sources.text import clean

if TYPE_CHECKING:
    from docker import APIClient

_TICK_SECONDS: Final = 0.1
# How long an engine may take beyond what it was told to take itself.
_MARGIN_SECONDS: Final = 10.0
_PROGRESS_SECONDS: Final = 0.5
_LINE_CHARACTERS: Final = 300
_MOST_LAYERS: Final = 256
_LET_GO_SECONDS: Final = 2.0
_GRACE_SECONDS: Final = 10

Options = Mapping[str, Any]


@dataclass(slots=True)
class Call:
    """One call under way. ``response`` is what is being read, for whoever must cut it."""

    client: "APIClient"
    target: str
    options: Options
    progress: Progress
    timeout_seconds: float
    response: Any = None
    cancelled: threading.Event = field(default_factory=threading.Event)


class EngineFailedError(NarthexError):
    """The engine said no, in its own words."""


@dataclass(frozen=True, slots=True)
class _Operation:
    """What may be asked: how, and with which options; ``required`` must be there."""

    carry_out: Callable[[Call], str]
    options: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    has_target: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCalls:
    """Call the engines at these sockets."""

    sockets: Mapping[str, Path] = field(default_factory=lambda: dict(SOCKETS))
    clock: Callable[[], float] = time.monotonic

    def call(
        self,
        step: EngineCall,
        *,
        timeout_seconds: float,
        cancelled: threading.Event,
        progress: Progress,
    ) -> tuple[RunState, int, str]:
        """Call, telling what happens meanwhile. Returns state, code and what happened."""
        operation = checked(step)
        socket = self.sockets.get(step.engine)
        if socket is None:
            raise RunnerError(f"there is no engine {step.engine!r}")
        try:
            # Its own short wait: an engine that hangs is known before anything is asked.
            client = connect(socket)
        except NarthexError as error:
            return RunState.FAILED, 1, f"{step.engine} does not answer: {error}"
        client.timeout = timeout_seconds + _MARGIN_SECONDS  # type: ignore[assignment] # a fraction
        call = Call(
            client=client, target=step.target, options=dict(step.options), progress=progress,
            timeout_seconds=timeout_seconds, cancelled=cancelled,
        )  # fmt: skip
        return self._watched(operation, call)

    def _watched(self, operation: _Operation, call: Call) -> tuple[RunState, int, str]:
        """Let a thread wait for the engine, and stop waiting when there is reason to."""
        work = _Work(operation, call)
        thread = threading.Thread(target=work.run, name="engine-call", daemon=True)
        deadline = self.clock() + call.timeout_seconds
        thread.start()
        while thread.is_alive():
            thread.join(_TICK_SECONDS)
            late = self.clock() > deadline
            if thread.is_alive() and (call.cancelled.is_set() or late):
                return self._let_go(thread, call)
        call.client.close()
        if call.cancelled.is_set() and work.failed:
            return RunState.CANCELLED, 1, work.told
        return (
            (RunState.FAILED if work.failed else RunState.SUCCEEDED),
            int(work.failed),
            work.told,
        )

    def _let_go(self, thread: threading.Thread, call: Call) -> tuple[RunState, int, str]:
        state = RunState.CANCELLED if call.cancelled.is_set() else RunState.TIMED_OUT
        if call.response is None:
            return state, 1, "not waited for any longer; what the engine had begun may go on"
        # The engine gives a pull up once nobody reads what it tells of it.
        cut(call.response)
        thread.join(_LET_GO_SECONDS)
        return state, 1, "given up; what was downloaded is kept by the engine for the next time"


@dataclass(slots=True)
class _Work:
    """The part that waits for the engine."""

    operation: _Operation
    call: Call
    told: str = ""
    failed: bool = False

    def run(self) -> None:
        try:
            with telling():
                self.told = self.operation.carry_out(self.call)
        except NarthexError as error:
            self.told, self.failed = _line(str(error)), True


def checked(step: EngineCall) -> _Operation:
    """Look an operation up, and refuse options that it does not know. Raises RunnerError."""
    operation = OPERATIONS.get(step.operation)
    if operation is None:
        raise RunnerError(f"{step.operation!r} is not an operation of container engines")
    names = [name for name, _ in step.options]
    unknown = sorted(set(names) - operation.options)
    if unknown or len(set(names)) != len(names):
        raise RunnerError(f"{step.operation} knows no option {', '.join(unknown) or 'twice'}")
    missing = sorted(operation.required - set(names))
    if missing or bool(step.target) != operation.has_target:
        raise RunnerError(f"{step.operation} wants {', '.join(missing) or 'another target'}")
    return operation


def _line(text: object) -> str:
    return clean(" ".join(str(text).split()), limit=2000)


# --- containers ---


def _start(call: Call) -> str:
    call.client.start(call.target)
    return "started"


def _stop(call: Call) -> str:
    call.client.stop(call.target, timeout=int(call.options.get("grace_seconds", _GRACE_SECONDS)))
    return "stopped"


def _restart(call: Call) -> str:
    grace = int(call.options.get("grace_seconds", _GRACE_SECONDS))
    call.client.restart(call.target, timeout=grace)
    return "restarted"


def _pause(call: Call) -> str:
    call.client.pause(call.target)
    return "paused"


def _unpause(call: Call) -> str:
    call.client.unpause(call.target)
    return "goes on"


def _kill(call: Call) -> str:
    call.client.kill(call.target, signal=str(call.options.get("signal", "SIGKILL")))
    return "the signal was sent"


def _remove(call: Call) -> str:
    call.client.remove_container(
        call.target,
        v=bool(call.options.get("anonymous_volumes", False)),
        force=bool(call.options.get("force", False)),
    )
    return "removed"


def _rename(call: Call) -> str:
    call.client.rename(call.target, str(call.options["name"]))
    return f"is called {call.options['name']} now"


def _update(call: Call) -> str:
    """Change limits. The library knows neither NanoCpus nor PidsLimit here."""
    body: dict[str, Any] = {}
    if "cpus" in call.options:
        body["NanoCpus"] = round(float(call.options["cpus"]) * 1e9)
    if "memory_bytes" in call.options:
        memory = int(call.options["memory_bytes"])
        # As much swap again, as when a container is made with this limit.
        body |= {"Memory": memory, "MemorySwap": memory * 2}
    if "pids" in call.options:
        body["PidsLimit"] = int(call.options["pids"]) or -1
    if "restart" in call.options:
        body["RestartPolicy"] = {"Name": str(call.options["restart"])}
    told = _posted(call, f"containers/{quote(call.target, safe='')}/update", body)
    return "\n".join(map(_line, told.get("Warnings") or ())) or "changed"


def _create(call: Call) -> str:
    """Make a container of exactly what was declared: no other field can be said here."""
    options = call.options
    ports: dict[str, list[dict[str, str]]] = {}
    for port, address, host_port in options.get("ports", ()):
        ports.setdefault(str(port), []).append(
            {"HostIp": str(address), "HostPort": str(host_port)}
        )
    networks = tuple(map(str, options.get("networks", ())))
    memory = int(options.get("memory_bytes", 0))
    host: dict[str, Any] = {
        "PortBindings": ports,
        "Mounts": [
            {"Type": "volume", "Source": str(name), "Target": str(target), "ReadOnly": bool(read)}
            for name, target, read in options.get("volumes", ())
        ],
        "RestartPolicy": {"Name": str(options.get("restart", "no"))},
        "NanoCpus": round(float(options.get("cpus", 0)) * 1e9),
        "Memory": memory,
        "ReadonlyRootfs": bool(options.get("read_only", False)),
        "CapDrop": ["ALL"] if options.get("drop_capabilities") else [],
        "Privileged": False,
    }
    if options.get("pids"):
        host["PidsLimit"] = int(options["pids"])
    if networks:
        host["NetworkMode"] = networks[0]
    body: dict[str, Any] = {
        "Image": str(options["image"]),
        "Env": [str(one) for one in options.get("env", ())],
        "Labels": {str(name): str(value) for name, value in options.get("labels", ())},
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": host,
    }
    if options.get("command"):
        body["Cmd"] = [str(word) for word in options["command"]]
    if options.get("user"):
        body["User"] = str(options["user"])
    told = _posted(call, "containers/create", body, params={"name": str(options["name"])})
    id_ = str(told.get("Id", ""))
    for network in networks[1:]:
        call.client.connect_container_to_network(id_, network)
    warnings = [_line(one) for one in told.get("Warnings") or ()]
    return "\n".join((f"made {id_[:12]}", *warnings))


# --- images ---


def _pull(call: Call) -> str:
    """Pull, telling how far each layer is. Root's own credentials for the registry are used."""
    from docker import auth  # noqa: PLC0415

    repository, tag = call.target, str(call.options["tag"])
    registry, _ = auth.resolve_repository_name(repository)
    header = auth.get_config_header(call.client, registry)
    call.response = call.client.post(
        _url(call, "images/create"),
        params={"fromImage": repository, "tag": tag},
        headers={"X-Registry-Auth": header} if header else {},
        stream=True,
        timeout=call.timeout_seconds + _MARGIN_SECONDS,
    )
    judged(call.response)
    layers: dict[str, str] = {}
    told = 0.0
    for event in _events(call.response):
        if "error" in event:
            raise EngineFailedError(str(event["error"]))
        _note(layers, event)
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            call.progress("\n".join(layers.values()))
    if call.cancelled.is_set():
        raise EngineFailedError("given up")
    return "\n".join(layers.values())


def _events(response: Any) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines(chunk_size=None):
        try:
            event = json.loads(line) if line else None
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _note(layers: dict[str, str], event: Mapping[str, Any]) -> None:
    id_, status = str(event.get("id", "")), str(event.get("status", ""))
    detail = event.get("progressDetail") or {}
    current, total = detail.get("current"), detail.get("total")
    far = f" {current} of {total} bytes" if current is not None and total else ""
    text = f"{id_}: {status}{far}" if id_ else status
    if id_ in layers or len(layers) < _MOST_LAYERS:
        layers[id_ or status] = clean(text, limit=_LINE_CHARACTERS)


def _tag(call: Call) -> str:
    call.client.tag(call.target, str(call.options["repository"]), tag=str(call.options["tag"]))
    return "tagged"


def _remove_image(call: Call) -> str:
    told = call.client.remove_image(call.target, force=False)
    return "\n".join(_line(f"{kind} {id_}") for one in told or () for kind, id_ in one.items())


def _prune(remove: Callable[[Call, str], object]) -> Callable[[Call], str]:
    """Remove exactly what was listed; what is used by now the engine keeps, and says so."""

    def prune(call: Call) -> str:
        from docker.errors import APIError  # noqa: PLC0415

        kept = []
        names = [str(one) for one in call.options["names"]]
        for index, name in enumerate(names):
            if call.cancelled.is_set():
                raise EngineFailedError(f"given up after {index} of {len(names)}")
            try:
                remove(call, name)
            except APIError as error:
                kept.append(_line(f"kept {name}: {error.explanation or error}"))
            call.progress(f"{index + 1} of {len(names)}")
        if len(kept) == len(names):
            raise EngineFailedError("; ".join(kept))
        return "\n".join((f"removed {len(names) - len(kept)} of {len(names)}", *kept))

    return prune


# --- volumes and networks ---


def _create_volume(call: Call) -> str:
    call.client.create_volume(name=str(call.options["name"]), driver="local")
    return "made"


def _remove_volume(call: Call) -> str:
    call.client.remove_volume(call.target, force=False)
    return "removed"


def _create_network(call: Call) -> str:
    call.client.create_network(
        str(call.options["name"]),
        driver="bridge",
        internal=bool(call.options.get("internal", False)),
        check_duplicate=True,
    )
    return "made"


def _remove_network(call: Call) -> str:
    call.client.remove_network(call.target)
    return "removed"


def _connect(call: Call) -> str:
    call.client.connect_container_to_network(str(call.options["container"]), call.target)
    return "connected"


def _disconnect(call: Call) -> str:
    call.client.disconnect_container_from_network(str(call.options["container"]), call.target)
    return "disconnected"


def _url(call: Call, path: str) -> str:
    return f"{call.client.base_url}/v{call.client.api_version}/{path}"


def _posted(
    call: Call, path: str, body: Mapping[str, Any], *, params: Mapping[str, str] | None = None
) -> dict[str, Any]:
    told = judged(
        call.client.post(_url(call, path), json=body, params=params, timeout=call.client.timeout)
    ).json()
    return told if isinstance(told, dict) else {}


_LIMITS: Final = frozenset({"cpus", "memory_bytes", "pids", "restart"})
_CREATED: Final = _LIMITS | {
    "name", "image", "command", "env", "ports", "volumes", "networks", "labels", "user",
    "read_only", "drop_capabilities",
}  # fmt: skip
_NAME: Final = frozenset({"name"})
_NAMES: Final = frozenset({"names"})
_GRACE: Final = frozenset({"grace_seconds"})
_TAG: Final = frozenset({"repository", "tag"})
_MEMBER: Final = frozenset({"container"})

OPERATIONS: Final[Mapping[str, _Operation]] = {
    "container.create": _Operation(
        _create, _CREATED, frozenset({"name", "image"}), has_target=False
    ),
    "container.kill": _Operation(_kill, frozenset({"signal"})),
    "container.pause": _Operation(_pause),
    "container.remove": _Operation(_remove, frozenset({"force", "anonymous_volumes"})),
    "container.rename": _Operation(_rename, _NAME, _NAME),
    "container.restart": _Operation(_restart, _GRACE),
    "container.start": _Operation(_start),
    "container.stop": _Operation(_stop, _GRACE),
    "container.unpause": _Operation(_unpause),
    "container.update": _Operation(_update, _LIMITS),
    "image.prune": _Operation(
        _prune(lambda call, name: call.client.remove_image(name, force=False)),
        _NAMES, _NAMES, has_target=False,
    ),
    "image.pull": _Operation(_pull, frozenset({"tag"}), frozenset({"tag"})),
    "image.remove": _Operation(_remove_image),
    "image.tag": _Operation(_tag, _TAG, _TAG),
    "network.connect": _Operation(_connect, _MEMBER, _MEMBER),
    "network.create": _Operation(
        _create_network, _NAME | {"internal"}, _NAME, has_target=False
    ),
    "network.disconnect": _Operation(_disconnect, _MEMBER, _MEMBER),
    "network.prune": _Operation(
        _prune(lambda call, name: call.client.remove_network(name)),
        _NAMES, _NAMES, has_target=False,
    ),
    "network.remove": _Operation(_remove_network),
    "volume.create": _Operation(_create_volume, _NAME, _NAME, has_target=False),
    "volume.prune": _Operation(
        _prune(lambda call, name: call.client.remove_volume(name, force=False)),
        _NAMES, _NAMES, has_target=False,
    ),
    "volume.remove": _Operation(_remove_volume),
}  # fmt: skip
