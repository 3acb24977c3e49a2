"""The sources behind the queries, on pretended and on real files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex_exporter.sources.host import Host, parse_os_release
from narthex_exporter.sources.processes import Processes, parse_owner, parse_stat, user_name
from narthex_exporter.sources.text import clean, clean_block

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("cgroup", "owner"),
    [
        ("0::/system.slice/nginx.service\n", ("nginx.service", "")),
        ("9:name=systemd:/system.slice/nginx.service\n0::/\n", ("nginx.service", "")),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
         ("user@1000.service", "")),
        ("0::/user.slice/user-0.slice/session-3.scope", ("session-3.scope", "")),
        (f"0::/system.slice/docker-{HEX}.scope", (f"docker-{HEX}.scope", HEX[:12])),
        (f"0::/machine.slice/libpod-{HEX}.scope/container", (f"libpod-{HEX}.scope", HEX[:12])),
        (f"4:memory:/docker/{HEX}\n9:name=systemd:/docker/{HEX}\n0::/", ("", HEX[:12])),
        (f"4:memory:/kubepods/burstable/pod1/{HEX}\n0::/", ("", HEX[:12])),
        ("0::/init.scope", ("init.scope", "")),
        ("0::/", ("", "")),
        ("", ("", "")),
        ("nonsense", ("", "")),
    ],
)  # fmt: skip
def test_a_cgroup_tells_who_owns_a_process(cgroup: str, owner: tuple[str, str]) -> None:
    assert parse_owner(cgroup) == owner


@pytest.mark.parametrize("name", ["sleep", "a) R 1 (b", "(", ")", "", "a b", "\x1b[2J"])
def test_any_process_name_is_parsed(name: str) -> None:
    fields = " ".join(str(number) for number in range(1, 50))
    stat = parse_stat(f"42 ({name}) S {fields}\n".encode())
    assert stat.comm == name.replace("\x1b", "\ufffd")
    assert (stat.state, stat.ppid, stat.start_ticks) == ("S", 1, 19)


@given(st.binary(max_size=200))
def test_a_broken_stat_is_an_error_and_no_more(raw: bytes) -> None:
    try:
        parse_stat(raw)
    except ValueError:
        return


def test_a_busy_process_is_seen_to_be_busy() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        found = {one.pid: one for one in Processes().list()}
        assert (found[busy.pid].cpu_ratio or 0) > 0.1
        assert found[busy.pid].cmdline.split("\0")[1:] == ["-c", "while True: pass"]
        assert found[busy.pid].user == user_name(os.geteuid())
        assert abs(found[busy.pid].started_at_seconds - time.time()) < 30
    finally:
        busy.kill()
        busy.wait()


def test_a_second_look_waits_for_nothing() -> None:
    slept: list[float] = []
    processes = Processes(sleep=slept.append)
    processes.list()
    processes.list()
    assert slept == [0.25]


def test_a_protected_process_and_its_children_are_ours() -> None:
    parent = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE)
    other = subprocess.Popen(["sleep", "300"])
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        processes = Processes(protected=(parent.pid,))
        found = {one.pid: one.is_ours for one in processes.list()}
        assert (found[parent.pid], found[child], found[other.pid]) == (True, True, False)
        assert found[os.getpid()] is True
    finally:
        os.kill(child, 9)
        for process in (parent, other):
            process.kill()
            process.wait()
        parent.stdout.close()


def test_a_narthex_program_of_our_user_is_ours(tmp_path: Path) -> None:
    script = tmp_path / "narthex"
    script.write_text("import time; time.sleep(300)")
    process = subprocess.Popen([sys.executable, str(script), "up"])
    try:
        deadline = time.monotonic() + 5
        while not (fact := Processes().get(process.pid)) or not fact.is_ours:
            assert time.monotonic() < deadline
    finally:
        process.kill()
        process.wait()


def test_a_process_that_is_not_there_is_none() -> None:
    assert Processes().get(4_194_304) is None
    assert Processes().start_ticks(4_194_304) is None


def test_the_host_is_described_and_what_is_missing_is_empty(tmp_path: Path) -> None:
    here = Host().get()
    assert here.cpus == os.cpu_count()
    assert here.memory_bytes > 1 << 20
    assert here.boot_seconds < time.time()
    nowhere = Host(root=tmp_path).get()
    assert (nowhere.os_name, nowhere.memory_bytes, nowhere.virtualization) == ("", 0, "none")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"),
        ({".dockerenv": ""}, "docker"),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "qemu"),
        ({"proc/cpuinfo": "flags\t: fpu hypervisor sse\n"}, "unknown hypervisor"),
        ({"proc/cpuinfo": "flags\t: fpu sse\n"}, "none"),
    ],
)
def test_a_virtual_machine_is_told(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert Host(root=tmp_path).get().virtualization == kind


def test_os_release_is_parsed() -> None:
    text = "# x\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\n\nBROKEN\nID=debian\n"
    found = parse_os_release(text)
    assert found == {"NAME": "Debian GNU/Linux", "VERSION_ID": "12", "ID": "debian"}


@given(st.binary(max_size=100))
def test_clean_text_is_harmless_and_bounded(raw: bytes) -> None:
    text = clean(raw, limit=20)
    assert len(text) <= 20
    assert not set(text) & set(map(chr, [*range(9), *range(10, 32), 127, 0x202E, 0x2028]))
    assert clean_block(raw).count("\n") == raw.count(b"\n")
