"""A machine under test with its neighbours, in network namespaces that nobody else has.

::

    lan  10.1.0.2, 10.1.0.77    --- eth0 10.1.0.1      \\
    wan  203.0.113.2, 198.51.100.9 - wan0 203.0.113.1   | the machine
    box  172.17.0.2 (port 80)   --- docker0 172.17.0.1 /

Each lives as long as the process that holds it; nothing is mounted or named.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOLD = "import signal; signal.pause()"
SERVE = """\
import selectors, socket, sys
selector = selectors.DefaultSelector()
for word in sys.argv[1:]:
    kind = socket.SOCK_STREAM if word[0] == "t" else socket.SOCK_DGRAM
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        one = socket.socket(family, kind)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, int(word[1:])))
        if kind == socket.SOCK_STREAM:
            one.listen(64)
        one.setblocking(False)
        selector.register(one, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            key.fileobj.accept()[0].close()
        else:
            data, peer = key.fileobj.recvfrom(64)
            key.fileobj.sendto(data, peer)
"""
# Tries all at once, so that what is dropped is waited for once only.
TRY = """\
import json, selectors, socket, sys, time
def attempt(selector, found, source, target, protocol, port):
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    one.setblocking(False)
    one.bind((source, 0))
    name = f"{source} {protocol} {port}"
    found[name] = False
    waits = selectors.EVENT_WRITE if protocol == "tcp" else selectors.EVENT_READ
    try:
        one.connect_ex((target, port))
        if protocol == "udp":
            one.send(b"?")
    except OSError:
        return one
    selector.register(one, waits, (name, protocol))
    return one
for line in sys.stdin:
    selector, found, asked = selectors.DefaultSelector(), {}, json.loads(line)
    kept = [attempt(selector, found, *one) for one in asked["tries"]]
    end = time.monotonic() + asked["seconds"]
    while time.monotonic() < end and selector.get_map():
        for key, _ in selector.select(max(0, end - time.monotonic())):
            name, protocol = key.data
            if protocol == "tcp":
                found[name] = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            else:
                try:
                    found[name] = key.fileobj.recv(64) == b"?"
                except OSError:
                    found[name] = False
            selector.unregister(key.fileobj)
    for one in kept:
        one.close()
    print(json.dumps(found), flush=True)
"""


@dataclass(frozen=True)
class Helper:
    """A Python program in a namespace that answers each line of JSON with one."""

    process: "subprocess.Popen[str]"

    def ask(self, question: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@dataclass(frozen=True)
class Namespace:
    """One network namespace, held by a process of ours."""

    pid: int

    def command(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", "--", *argv]

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        done = subprocess.run(
            self.command(*argv), input=stdin, capture_output=True, text=True, check=False,
            timeout=30,
        )  # fmt: skip
        assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def helper(self, program: str) -> Iterator[Helper]:
        process = subprocess.Popen(
            self.command(sys.executable, "-Ic", program),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            try:
                yield Helper(process)
            finally:
                process.kill()


@dataclass(frozen=True)
class Town:
    """The machine and its neighbours."""

    machine: Namespace
    lan: Namespace
    wan: Namespace
    box: Namespace
    from_lan: Helper
    from_wan: Helper

    def load(self, ruleset: str) -> None:
        self.machine.run("nft", "-f", "-", stdin=f"flush ruleset\n{ruleset}")

    def reached(
        self, tries: list[tuple[str, str, int]], *, seconds: float = 0.5
    ) -> dict[str, bool]:
        """Try (source, protocol, port), each from its own neighbour, with real packets."""
        found: dict[str, bool] = {}
        for one, targets in (
            (self.from_lan, dict.fromkeys(LAN, "10.1.0.1") | dict.fromkeys(LAN6, "fd00:1::1")),
            (self.from_wan, dict.fromkeys(WAN, "203.0.113.1")),
        ):
            mine = [(s, targets[s], kind, port) for s, kind, port in tries if s in targets]
            if mine:
                found |= one.ask({"tries": mine, "seconds": seconds})
        return found


LAN = ("10.1.0.2", "10.1.0.77")
LAN6 = ("fd00:1::2",)
WAN = ("203.0.113.2", "198.51.100.9")


@contextlib.contextmanager
def town(ports: tuple[str, ...]) -> Iterator[Town]:
    """Build the town, with ``ports`` (``t80``, ``u53``) served on the machine, for a while."""
    with contextlib.ExitStack() as opened:
        machine, lan, wan, box = (opened.enter_context(namespace()) for _ in range(4))
        for one in (machine, lan, wan, box):
            one.run("ip", "link", "set", "lo", "up")
        theirs = ["10.1.0.2/24", "10.1.0.77/24", "fd00:1::2/64"]
        _wire(machine, lan, "eth0", ["10.1.0.1/24", "fd00:1::1/64"], theirs)
        _wire(machine, wan, "wan0", ["203.0.113.1/24"], ["203.0.113.2/24", "198.51.100.9/32"])
        machine.run("ip", "link", "add", "docker0", "type", "bridge")
        machine.run("ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
        machine.run("ip", "link", "set", "docker0", "up")
        _wire(machine, box, "vethb", [], ["172.17.0.2/16"])
        machine.run("ip", "link", "set", "vethb", "master", "docker0")
        box.run("ip", "route", "add", "default", "via", "172.17.0.1")
        lan.run("ip", "route", "add", "default", "via", "10.1.0.1")
        machine.run("ip", "route", "add", "default", "via", "203.0.113.2")
        machine.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        opened.enter_context(served(machine, *ports))
        opened.enter_context(served(box, "t80"))
        helpers = [opened.enter_context(one.helper(TRY)) for one in (lan, wan)]
        yield Town(machine, lan, wan, box, *helpers)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    process = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-Ic", HOLD], stdin=subprocess.DEVNULL
    )
    try:
        own = str(Path("/proc/self/ns/net").readlink())
        deadline = time.monotonic() + 5
        while _net(process.pid) in {own, ""}:
            assert time.monotonic() < deadline, "no namespace was made"
            time.sleep(0.01)
        yield Namespace(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def served(where: Namespace, *ports: str) -> Iterator[int]:
    process = subprocess.Popen(
        where.command(sys.executable, "-Ic", SERVE, *ports), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _net(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def _wire(
    here: Namespace, there: Namespace, name: str, mine: list[str], theirs: list[str]
) -> None:
    here.run("ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", str(there.pid))
    for one, at, addresses in ((here, name, mine), (there, "eth0", theirs)):
        for address in addresses:
            one.run(
                "ip", "addr", "add", address, "dev", at, *(["nodad"] if ":" in address else [])
            )
        one.run("ip", "link", "set", at, "up")


def exists() -> bool:
    """Tell whether this machine lets us make namespaces."""
    return os.geteuid() == 0 and all(
        Path(f"/usr/{folder}/{name}").exists()
        for folder, name in (("bin", "unshare"), ("bin", "nsenter"), ("sbin", "nft"))
    )
