"""Read what cron and anacron are to do, and when anacron did it: crontab(5), anacron(8)."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from narthex_exporter.sources.text import clean, small_file

_MOST_BYTES: Final = 1 << 20
_MOST_FILES: Final = 2000
_SETTING: Final = re.compile(r"""\s*(?:"[^"]*"|'[^']*'|[A-Za-z_]\w*)\s*=""")
_SPECIAL: Final = frozenset({
    "@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly",
})  # fmt: skip
_PERIODS: Final = frozenset({"@daily", "@weekly", "@monthly", "@yearly", "@annually"})
_FIELD: Final = re.compile(r"[0-9A-Za-z*,/~-]+\Z")
_FIELDS: Final = 5
# What run-parts(8) runs, and what Debian's cron takes of /etc/cron.d.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_LEFTOVER: Final = re.compile(r"\A\.|~\Z|\.(?:rpm(?:save|new|orig)|dpkg-\w+|swp|bak)\Z")
_STAMP: Final = re.compile(r"[0-9]{8}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """How many jobs the tables of one kind hold, and how many of their lines are none.

    cron leaves out a whole table for one line that it cannot read.
    """

    source: str
    jobs: int
    malformed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When anacron last finished a job, in unixtime."""

    job: str
    at: float


def parse_crontab(text: str, *, with_user: bool) -> tuple[int, int]:
    """Count the jobs of a crontab and its malformed lines; a system's own names a user too."""
    jobs = malformed = 0
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#") or _SETTING.match(line):
            continue
        if _is_job(line.split(), 2 if with_user else 1):
            jobs += 1
        else:
            malformed += 1
    return jobs, malformed


def parse_anacrontab(text: str) -> tuple[int, int]:
    """Count the jobs of an anacrontab, ``period delay name command``, and its malformed lines."""
    found = malformed = 0
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#") or _SETTING.match(line):
            continue
        period, delay, *rest = [*line.split(None, 3), "", ""][:4]
        timed = period.isdecimal() or period in _PERIODS
        if timed and delay.isdecimal() and all(rest):
            found += 1
        else:
            malformed += 1
    return found, malformed


def _is_job(words: list[str], after: int) -> bool:
    if words[0].startswith("@"):
        return words[0].lower() in _SPECIAL and len(words) > after
    fields = words[:_FIELDS]
    # A leading minus keeps SUSE's and Arch's cron from logging.
    fields[0] = fields[0].removeprefix("-")
    return len(words) >= _FIELDS + after and all(map(_FIELD.match, fields))


def jobs(root: Path) -> list[Jobs]:
    """Count the jobs of each kind of table; a kind that is not there, or not ours to read, lacks.

    ``users`` are the tables of people, which only root reads.
    """
    found = []
    table = _text(root / "etc/crontab")
    if table is not None:
        found.append(_counted("crontab", [table], with_user=True))
    debian = (root / "etc/debian_version").exists()
    folder = root / "etc/cron.d"
    if folder.is_dir():
        taken = [path for path in _files(folder) if not debian or _PLAIN.match(path.name)]
        found.append(_counted("cron.d", map(_text, taken), with_user=True))
    table = _text(root / "etc/anacrontab")
    if table is not None:
        count, malformed = parse_anacrontab(table)
        found.append(Jobs(source="anacrontab", jobs=count, malformed=malformed))
    for period in ("hourly", "daily", "weekly", "monthly"):
        folder = root / f"etc/cron.{period}"
        if folder.is_dir():
            count = sum(_runs(path) for path in _files(folder))
            found.append(Jobs(source=folder.name, jobs=count, malformed=0))
    spool = root / "var/spool/cron/crontabs"
    # Elsewhere than on Debian and Alpine they lie in the folder itself.
    spool = spool if spool.is_dir() else spool.parent
    with contextlib.suppress(PermissionError):
        if spool.is_dir() and os.access(spool, os.R_OK):
            found.append(_counted("users", map(_text, _files(spool)), with_user=False))
    return found


def anacron_runs(root: Path) -> list[Run]:
    """Tell when each of anacron's jobs last ended.

    Its file holds the day, and was written at the end; who may not read it trusts the file's time.
    """
    found = []
    for path in _files(root / "var/spool/anacron"):
        try:
            at = path.stat().st_mtime
        except OSError:
            continue
        day = (_text(path) or "").strip()
        if _STAMP.match(day) and day != time.strftime("%Y%m%d", time.localtime(at)):
            # Copied or restored, so that only the day is known.
            try:
                at = time.mktime(time.strptime(day, "%Y%m%d"))
            except (ValueError, OverflowError):
                continue
        found.append(Run(job=clean(path.name, limit=255), at=at))
    return found


def _counted(source: str, tables: "Iterator[str | None] | list[str]", *, with_user: bool) -> Jobs:
    found = malformed = 0
    for table in tables:
        more, bad = parse_crontab(table or "", with_user=with_user)
        found += more
        malformed += bad
    return Jobs(source=source, jobs=found, malformed=malformed)


def _files(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names as they are
    except OSError:
        return []
    paths = (folder / name for name in names[:_MOST_FILES] if not _LEFTOVER.search(name))
    return [path for path in paths if path.is_file()]


def _runs(path: Path) -> bool:
    # Plain names everywhere, as elsewhere than on Debian only leftovers have others.
    return _PLAIN.match(path.name) is not None and os.access(path, os.X_OK)


def _text(path: Path) -> str | None:
    return small_file(path, most_bytes=_MOST_BYTES)
