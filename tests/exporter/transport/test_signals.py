"""No signal is missed, at whatever moment it comes."""

import os
import signal
import subprocess
import sys
import threading
import time

from narthex_exporter.signals import Signals

WAITER = """
import os, signal, sys, threading
from narthex_exporter.signals import Signals
threading.Thread(target=lambda: [sum(range(1000)) for _ in iter(int, 1)], daemon=True).start()
with Signals() as signals:
    print("ready", flush=True)
    while True:
        number = signals.wait()
        print(number, flush=True)
        if number == signal.SIGTERM:
            break
"""


def test_signals_come_one_by_one_and_in_time() -> None:
    with Signals((signal.SIGUSR1, signal.SIGUSR2)) as signals:
        began = time.monotonic()
        assert signals.wait(0.05) is None
        assert time.monotonic() - began < 1
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.wait(5) == signal.SIGUSR1
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        assert signals.wait(5) == signal.SIGUSR2
        assert signals.wait(0) is None


def test_what_was_there_before_is_there_again() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Signals((signal.SIGUSR1,)):
        assert signal.getsignal(signal.SIGUSR1) is not before
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_busy_program_misses_none_of_hundreds() -> None:
    with subprocess.Popen(
        [sys.executable, "-Ic", WAITER], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(300):
            process.send_signal(signal.SIGHUP)
            assert int(process.stdout.readline()) == signal.SIGHUP
        process.send_signal(signal.SIGTERM)
        assert int(process.stdout.readline()) == signal.SIGTERM
        assert process.wait(10) == 0
