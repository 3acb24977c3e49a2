"""Programs are run without a shell, and none outlives its time."""

import time
from pathlib import Path

import pytest

from narthex_exporter.sources.programs import MissingError, ProgramError, run


def test_a_program_is_heard_out() -> None:
    done = run(("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (done.code, done.output, done.error) == (3, b"out\n", "err\n")


def test_its_environment_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LC_ALL", "ru_RU.UTF-8")
    output = run(("env",)).output.decode()
    assert "SECRET" not in output
    assert "LC_ALL=C\n" in output


def test_a_missing_program_is_told() -> None:
    with pytest.raises(MissingError, match="no-such-program"):
        run(("no-such-program",))


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(ProgramError, match=r"within 0\.5 s"):
        run(("sh", "-c", f"sleep 60 & echo $! >{file}; wait"), timeout_seconds=0.5)
    assert time.monotonic() - began < 2
    child = int(file.read_text())
    assert _ends(child)


def test_a_child_that_stays_behind_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    began = time.monotonic()
    done = run(("sh", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! >{file}"))
    assert done.code == 0
    assert time.monotonic() - began < 5
    child = int(file.read_text())
    assert _ends(child)


@pytest.mark.parametrize("where", ["1", "2"])
def test_one_that_prints_without_end_is_stopped(where: str) -> None:
    began = time.monotonic()
    with pytest.raises(ProgramError):
        run(("sh", "-c", f"exec yes >&{where}"), timeout_seconds=2)
    assert time.monotonic() - began < 10


def _ends(pid: int) -> bool:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in {"Z", "X"}:
            return True
        time.sleep(0.01)
    return False
