import os
from collections.abc import Callable
from pathlib import Path

import pytest

from narthex_exporter.collectors import cron
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import NoData, Node

Measure = Callable[..., dict[str, float]]


def test_jobs_are_counted_by_where_they_are(measure: Measure, tree: Path) -> None:
    spool = tree / "root/var/spool/cron/crontabs"
    spool.mkdir(parents=True)
    (spool / "vera").write_text("*/5 * * * * /usr/local/bin/poll\n")
    found = measure(cron.collect, tree)
    assert {key: value for key, value in found.items() if "jobs" in key} == {
        'narthex_cron_jobs{source="crontab"}': 3,
        'narthex_cron_jobs{source="cron.d"}': 1,
        'narthex_cron_jobs{source="cron.daily"}': 0,
        'narthex_cron_jobs{source="users"}': 1,
    }
    assert found['narthex_cron_malformed_lines{source="crontab"}'] == 0


def test_anacrons_jobs_have_their_times_and_their_cap(
    measure: Measure, make_node: Callable[..., Node], tmp_path: Path
) -> None:
    folder = tmp_path / "root/var/spool/anacron"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"job{number}").touch()
        os.utime(folder / f"job{number}", (1000 + number, 1000 + number))
    found = measure(cron.collect, tmp_path)
    assert found['narthex_anacron_last_run_timestamp_seconds{name="job1"}'] == 1001
    cut = look(cron.collect, make_node(tmp_path, settings={cron.MOST: 2}))
    assert (len(cut.samples), cut.truncated) == (2, True)


def test_a_machine_without_cron_has_no_data(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    with pytest.raises(NoData):
        look(cron.collect, make_node(tmp_path))
