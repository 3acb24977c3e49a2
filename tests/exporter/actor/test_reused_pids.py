"""SECURITY.md 58: a number that another process has taken over meanwhile is never signalled.

Numbers are reused for real: the kernel gives the next process of a PID namespace whatever number
stands behind ``/proc/sys/kernel/ns_last_pid``, so that each one can be had again at once.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TRIES = 200
PROGRAM = Path(__file__).with_name("reusedpids.py")


def test_two_hundred_reused_numbers_are_signalled_not_once() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare: apt-get install util-linux")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
         sys.executable, str(PROGRAM), str(TRIES)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == {
        "reused": TRIES,
        "refused by plan": TRIES,
        "refused by step": TRIES,
        "survived": TRIES,
        "reniced": 0,
        "right one ended": TRIES,
    }
