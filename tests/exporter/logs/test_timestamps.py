import datetime as dt

import pytest

from narthex_exporter.logs.timestamps import line_time_ns

NOON = 1_795_521_600_123_000_000  # 2026-11-24T12:00:00.123Z


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-24T12:00:00.123Z it began",
        "[2026-11-24 12:00:00,123 +00:00] it began",
        "2026-11-24T14:00:00.123+02:00 it began",
        "time=2026-11-24T12:00:00.123Z level=INFO msg=began",
        'time="2026-11-24T12:00:00.123Z" level=info msg=began',
        "ts=2026-11-24T12:00:00.123Z caller=main.go:1 msg=began",
    ],
)
def test_the_time_that_a_line_begins_with_is_read(line: str) -> None:
    assert line_time_ns(line, now_ns=NOON) == NOON


@pytest.mark.parametrize(
    "line", ["", "began", "uptime=2026-11-24T12:00:00Z", "time=now", "2026-13-45T99:99:99Z"]
)
def test_a_line_without_a_time_has_none(line: str) -> None:
    assert line_time_ns(line, now_ns=NOON) is None


def test_the_constant_is_noon() -> None:
    assert dt.datetime.fromtimestamp(NOON // 10**9, tz=dt.UTC).hour == 12
