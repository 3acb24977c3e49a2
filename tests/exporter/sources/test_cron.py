import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex_exporter.sources.cron import Jobs, anacron_runs, jobs, parse_anacrontab, parse_crontab


@pytest.mark.parametrize(
    "line",
    [
        "17 * * * * root run-parts /etc/cron.hourly",
        "*/5 0-6,22 1 jan-mar mon root x",
        "0~30 3 * * 7 root x",
        "@reboot root x",
        "@Daily\troot\tx",
        "-*/15 * * * * root x",
        "  1 2 3 4 5 root x  ",
    ],
)
def test_a_line_with_a_time_a_user_and_a_command_is_a_job(line: str) -> None:
    assert parse_crontab(line, with_user=True) == (1, 0)


@pytest.mark.parametrize("line", ["* * * * * x", "@hourly x", "1 2 3 4 5 x y z"])
def test_a_table_of_a_person_names_no_user(line: str) -> None:
    assert parse_crontab(line, with_user=False) == (1, 0)


@pytest.mark.parametrize(
    "line",
    ["", "   ", "# 1 * * * * root x", "PATH=/bin", "MAILTO = vera", '"A B"=c', "CRON_TZ=UTC"],
)
def test_comments_and_settings_are_neither_jobs_nor_wrong(line: str) -> None:
    assert parse_crontab(line, with_user=True) == (0, 0)


@pytest.mark.parametrize(
    "line",
    ["* * * * root", "@reboot", "@reboot root", "@never root x", "a! * * * * root x", "- * * *"],
)
def test_what_is_no_job_is_counted_apart(line: str) -> None:
    assert parse_crontab(f"{line}\n1 * * * * root x\n", with_user=True) == (1, 1)


def test_anacron_has_a_table_of_its_own() -> None:
    text = (
        "# see anacron(8)\nSHELL=/bin/sh\nSTART_HOURS_RANGE=3-22\n\n"
        "1\t5\tcron.daily\trun-parts --report /etc/cron.daily\n"
        "@monthly 15 cron.monthly nice run-parts /etc/cron.monthly\n"
        "7 x cron.weekly run-parts\n1 5 nameless\n1\n"
    )
    assert parse_anacrontab(text) == (2, 3)


@given(st.text(), st.booleans())
def test_any_text_is_parsed(text: str, with_user: bool) -> None:  # noqa: FBT001 - drawn
    found, malformed = parse_crontab(text, with_user=with_user)
    assert found + malformed <= len(text.splitlines())
    found, malformed = parse_anacrontab(text)
    assert found + malformed <= len(text.splitlines())


def write(root: Path, path: str, text: str = "", mode: int = 0o644) -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


def test_jobs_are_counted_by_where_they_are(tmp_path: Path) -> None:
    write(tmp_path, "etc/crontab", "1 * * * * root x\nbroken\n")
    write(tmp_path, "etc/cron.d/php", "1 * * * * root x\n2 * * * * root x\n")
    write(tmp_path, "etc/anacrontab", "1 5 cron.daily run-parts /etc/cron.daily\n")
    write(tmp_path, "etc/cron.daily/backup", "#!/bin/sh\n", 0o755)
    write(tmp_path, "etc/cron.daily/notes", "not executable\n")
    write(tmp_path, "etc/cron.daily/backup.dpkg-old", "#!/bin/sh\n", 0o755)
    write(tmp_path, "var/spool/cron/crontabs/vera", "1 * * * * x\n")
    assert jobs(tmp_path) == [
        Jobs(source="crontab", jobs=1, malformed=1),
        Jobs(source="cron.d", jobs=2, malformed=0),
        Jobs(source="anacrontab", jobs=1, malformed=0),
        Jobs(source="cron.daily", jobs=1, malformed=0),
        Jobs(source="users", jobs=1, malformed=0),
    ]


def test_tables_of_people_may_lie_in_the_spool_itself(tmp_path: Path) -> None:
    write(tmp_path, "var/spool/cron/vera", "1 * * * * x\n")
    assert jobs(tmp_path) == [Jobs(source="users", jobs=1, malformed=0)]


@pytest.mark.parametrize(("debian", "count"), [(True, 1), (False, 2)])
def test_only_debian_passes_over_names_with_dots(
    tmp_path: Path,
    debian: bool,  # noqa: FBT001 - drawn
    count: int,
) -> None:
    for name in ("plain", "with.dot", ".placeholder", "plain~", "old.rpmsave"):
        write(tmp_path, f"etc/cron.d/{name}", "1 * * * * root x\n")
    if debian:
        write(tmp_path, "etc/debian_version", "12.5\n")
    assert jobs(tmp_path) == [Jobs(source="cron.d", jobs=count, malformed=0)]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/cron.d/pipe")
    os.mkfifo(tmp_path / "etc/crontab")
    assert jobs(tmp_path) == [Jobs(source="cron.d", jobs=0, malformed=0)]


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, "etc/crontab").write_bytes(b"\xff\xfe\x00\n1 * * * * root \xff\n")
    assert jobs(tmp_path) == [Jobs(source="crontab", jobs=1, malformed=1)]


def test_anacron_tells_when_its_jobs_ended(tmp_path: Path) -> None:
    now = time.time() - 3600
    stamp = write(tmp_path, "var/spool/anacron/cron.daily")
    stamp.write_text(time.strftime("%Y%m%d\n", time.localtime(now)))
    os.utime(stamp, (now, now))
    restored = write(tmp_path, "var/spool/anacron/cron.weekly", "20260101\n")
    strange = write(tmp_path, "var/spool/anacron/strange", "99999999\n")
    empty = write(tmp_path, "var/spool/anacron/vera\n")
    os.utime(empty, (now, now))
    found = {run.job: run.at for run in anacron_runs(tmp_path)}
    assert found == {
        "cron.daily": pytest.approx(now),
        "cron.weekly": time.mktime((2026, 1, 1, 0, 0, 0, 0, 0, -1)),
        "vera\ufffd": pytest.approx(now),
    }
    assert restored.exists()
    assert strange.exists()


def test_a_machine_without_cron_has_none(tmp_path: Path) -> None:
    assert jobs(tmp_path) == []
    assert anacron_runs(tmp_path) == []
