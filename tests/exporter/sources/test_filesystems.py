"""Mounts are read as the kernel writes them, and one that hangs delays nobody."""

import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex_exporter.collectors import COLLECTORS
from narthex_exporter.collectors.registry import to_families
from narthex_exporter.collectors.scrape import Scraper
from narthex_exporter.collectors.spec import Node
from narthex_exporter.sources.filesystems import Filesystems, Space, parse_mountinfo
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

SPACE = Space(size=1, free=1, available=1, files=1, files_free=1)
_FUSE_INIT, _FUSE_STATFS, _MNT_DETACH = 26, 17, 2


@pytest.mark.parametrize(
    ("line", "points"),
    [
        (b"36 35 98:0 /mnt1 /mnt2 rw shared:1 - ext3 /dev/root rw", ["/mnt2"]),
        (b"36 35 98:0 / /a\\040b\\011c\\012d\\134e rw - ext3 dev rw", ["/a b\tc\nd\\e"]),
        (b"36 35 98:0 / /\xff rw - ext3 dev rw", ["/\ufffd"]),
        (b"36 35 98:0 / /x rw a:1 b:2 c:3 - ext3 dev rw", ["/x"]),
        (b"36 35 98:0 / /x rw - fuse.- - rw", ["/x"]),
        (b"36 35 98:0 / /x rw - ext3", []),
        (b"", []),
    ],
)
def test_mountinfo_is_parsed(line: bytes, points: list[str]) -> None:
    assert [mount.point for mount in parse_mountinfo(line + b"\n")] == points


@pytest.mark.parametrize(
    ("options", "superblock", "readonly"),
    [
        (b"rw", b"rw", False),
        (b"ro,noexec", b"rw", True),
        (b"rw", b"ro", True),
        (b"rw,row", b"rw", False),
    ],
)
def test_readonly_is_told_for_mount_and_superblock(
    options: bytes,
    superblock: bytes,
    readonly: bool,  # noqa: FBT001
) -> None:
    (mount,) = parse_mountinfo(b"1 2 3:4 / /x " + options + b" - ext4 dev " + superblock)
    assert mount.readonly is readonly


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b" - ", b"1 2 3:4 / /x rw - a b c"])))
def test_no_bytes_break_the_parser(parts: list[bytes]) -> None:
    for mount in parse_mountinfo(b" ".join(parts)):
        assert isinstance(mount.point, str)


def test_a_hundred_thousand_mounts_are_read_in_seconds() -> None:
    lines = b"".join(b"%d 1 0:5 / /m/%d rw - tmpfs t rw\n" % (n, n) for n in range(100_000))
    began = time.monotonic()
    assert len(parse_mountinfo(lines)) == 100_000
    assert time.monotonic() - began < 5


def test_what_is_mounted_elsewhere_is_named_as_the_machine_does(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_bytes(
        b"1 2 3:4 / /host rw - ext4 dev rw\n1 2 3:4 / /host/srv rw - ext4 dev rw\n"
    )
    asked: list[bytes] = []

    def ask(path: bytes) -> Space:
        asked.append(path)
        return SPACE

    source = Filesystems(procfs=tmp_path, root=Path("/host"), ask=ask)
    mounts = source.mounts()
    assert [mount.point for mount in mounts] == ["/", "/srv"]
    source.spaces(mounts, limit_seconds=1, total_seconds=1)
    assert asked == [b"/host/", b"/host/srv"]


def test_many_hung_mounts_cost_few_threads_and_bounded_time() -> None:
    go_on = threading.Event()

    def ask(_path: bytes) -> Space:
        go_on.wait(10)
        return SPACE

    lines = b"".join(b"%d 1 0:5 / /m/%d rw - nfs t rw\n" % (n, n) for n in range(200))
    mounts = parse_mountinfo(lines)
    source = Filesystems(ask=ask)
    for _ in range(4):
        began = time.monotonic()
        found = source.spaces(mounts, limit_seconds=0.02, total_seconds=0.3)
        assert time.monotonic() - began < 1.0
        assert len(found) == 200
        assert all(outcome.stuck for outcome in found.values())
    assert source.hung <= 16
    go_on.set()
    _until(lambda: source.hung == 0)
    found = source.spaces(mounts, limit_seconds=1, total_seconds=2)
    assert all(outcome.value == SPACE for outcome in found.values())


class HungFuse:
    """A FUSE mount whose server greets the kernel and answers nothing more, until told to."""

    def __init__(self, point: Path) -> None:
        self.point = point
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self.asked = threading.Event()
        self.answer = threading.Event()
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if libc.mount(b"hung", os.fsencode(point), b"fuse.hung", 0, options.encode()):
            code = ctypes.get_errno()
            os.close(self.device)
            raise OSError(code, os.strerror(code))
        self.libc = libc
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self.device, 1 << 17)
            except OSError:
                return
            _, opcode, unique = struct.unpack_from("<IIQ", request)
            if opcode == _FUSE_INIT:
                body = struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 0, 0, 4096, 1, 1, 0, 0, *[0] * 7)
            elif opcode == _FUSE_STATFS:
                self.asked.set()
                self.answer.wait()
                body = struct.pack(
                    "<QQQQQIIII6I", 100, 50, 40, 10, 5, 4096, 255, 4096, 0, *[0] * 6
                )
            else:
                os.write(self.device, struct.pack("<IiQ", 16, -38, unique))
                continue
            os.write(self.device, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)

    def close(self) -> None:
        self.answer.set()
        self.libc.umount2(os.fsencode(self.point), _MNT_DETACH)
        os.close(self.device)
        self.thread.join(2)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungFuse]:
    if os.geteuid() or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
    point = tmp_path / "hung"
    point.mkdir()
    mount = HungFuse(point)
    yield mount
    mount.close()


def test_a_hung_mount_never_hangs_a_scrape(hung: HungFuse) -> None:
    scraper = Scraper(
        node=Node(proc=Procfs(), sys=Sysfs(), filesystems=Filesystems()), collectors=COLLECTORS
    )
    source = scraper.node.filesystems

    def scrape() -> tuple[dict[str, float], dict[str, float], float]:
        began = time.monotonic()
        samples = [s for family in to_families(scraper.samples()) for s in family.samples]
        took = time.monotonic() - began
        errors, sizes = {}, {}
        for s in samples:
            if s.name == "node_filesystem_device_error":
                errors[s.labels["mountpoint"]] = s.value
            if s.name == "node_filesystem_size_bytes":
                sizes[s.labels["mountpoint"]] = s.value
        return errors, sizes, took

    point = str(hung.point)
    errors, sizes, took = scrape()
    assert hung.asked.is_set()
    assert (errors[point], errors["/"]) == (1, 0)
    assert point not in sizes
    assert "/" in sizes
    assert took < 2.5
    times = []
    for _ in range(20):
        errors, _, took = scrape()
        times.append(took)
        assert errors[point] == 1
        assert source.hung == 1
    assert max(times) < 1.0
    hung.answer.set()
    _until(lambda: source.hung == 0)
    errors, sizes, _ = scrape()
    assert errors[point] == 0
    assert sizes[point] == 100 * 4096


def _until(look: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_mounted_and_unmounted_is_seen_at_once(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    source = Filesystems()
    before = source.mounts()
    assert source.mounts() is before
    point = os.fsencode(tmp_path)
    assert libc.mount(b"narthex-test", point, b"tmpfs", 0, b"size=64k") == 0
    try:
        assert str(tmp_path) in {mount.point for mount in source.mounts()}
    finally:
        libc.umount2(point, _MNT_DETACH)
    assert str(tmp_path) not in {mount.point for mount in source.mounts()}
    assert source.mounts() is source.mounts()


def test_a_copy_of_mountinfo_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "self" / "mountinfo"
    file.parent.mkdir()
    source = Filesystems(procfs=tmp_path)
    for name in ("one", "two"):
        file.write_text(f"1 2 3:4 / /{name} rw - ext4 dev rw\n")
        assert [mount.point for mount in source.mounts()] == [f"/{name}"]
