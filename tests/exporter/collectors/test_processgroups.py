"""Processes are counted by group, and what was counted stays."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import processgroups, processtop
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Block, Node
from narthex_exporter.sources.processnames import Rules, Subject, load, parse, program_name
from narthex_exporter.sources.processtable import ProcessTable, parse_stat
from narthex_exporter.sources.processtop import ProcessTop

Values = dict[str, float]
NUM = "namedprocess_namegroup_num_procs"


def put(
    tree: Path, pid: int, comm: str = "db", *, start: int = 100, user: int = 0, **more: Any
) -> None:
    """Write a process; ``more``: cmdline, ppid, rss, minor, read, threads, flags."""
    folder = tree / "proc" / str(pid)
    (folder / "fd").mkdir(parents=True, exist_ok=True)
    threads, minor = more.get("threads", 1), more.get("minor", 0)
    (folder / "stat").write_bytes(
        f"{pid} ({comm}) {more.get('state', 'S')} {more.get('ppid', 1)} 0 0 0 -1 "
        f"{more.get('flags', 0)} {minor} 0 0 0 {user} 0 0 0 20 0 {threads} 0 {start} 4096 "
        f"{more.get('rss', 1)} 0\n".encode("utf-8", "surrogateescape")
    )
    (folder / "cmdline").write_bytes(f"{more.get('cmdline', f'/bin/{comm}')}\0".encode())
    (folder / "status").write_text(
        "Uid:\t0\t0\t0\t0\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n"
    )
    (folder / "io").write_text(f"read_bytes: {more.get('read', 0)}\nwrite_bytes: 0\n")
    (folder / "limits").write_text("Max open files  10  10  files\n")
    (folder / "cgroup").write_text("0::/system.slice/db.service\n")


def end(tree: Path, pid: int) -> None:
    for path in sorted((tree / "proc" / str(pid)).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tree / "proc" / str(pid)).rmdir()


class Watch:
    """One exporter, that looks at a tree again and again."""

    def __init__(self, node: Node) -> None:
        self.node = node
        # What is kept open of a file that a test writes anew would be the old file.
        node.source(ProcessTable).keep_at_most = 0
        self.truncated = False

    def __call__(self, collector: Any = processgroups.collect) -> Values:
        found = look(collector, self.node.fresh())
        self.truncated = found.truncated
        values: Values = {}
        for sample in found.samples:
            if isinstance(sample, Block):
                for line in sample.text.splitlines():
                    series, _, value = line.rpartition(" ")
                    values[series.replace("namedprocess_namegroup_", "")] = float(value)
            else:
                names = ",".join(sample.values)
                values[f"{sample.metric.name}({names})"] = sample.value
        return values


@pytest.fixture
def watch(make_node: Callable[..., Node], tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("btime 1000\n")

    def make(rules: Any = None, **settings: Any) -> Watch:
        given = {getattr(processgroups, name): value for name, value in settings.items()}
        if rules is not None:
            given[processgroups.CONFIG] = parse({"process_names": rules})
        made.append(Watch(make_node(tmp_path, settings=given)))
        return made[-1]

    yield make
    for each in made:
        each.node.sources.close()


def test_the_fixture_shows_each_reading(measure: Callable[..., Values]) -> None:
    found = measure(processgroups.collect)
    label = 'groupname="web"'
    assert found[f"{NUM}{{{label}}}"] == 1
    name = "namedprocess_namegroup_"
    assert found[f'{name}memory_bytes{{{label},memtype="swapped"}}'] == 65536
    assert found[f"{name}open_filedesc{{{label}}}"] == 3
    assert found[f"{name}worst_fd_ratio{{{label}}}"] == 3 / 1024
    assert found[f'{name}states{{{label},state="Sleeping"}}'] == 1
    # It was there before we looked: it counts from now.
    assert found[f'{name}cpu_seconds_total{{{label},mode="user"}}'] == 0
    assert not [series for series in found if "kworker" in series]


def test_counters_stay_when_processes_end_and_new_ones_count_from_their_start(
    watch: Callable[..., Watch], tmp_path: Path
) -> None:
    put(tmp_path, 10, user=500)
    see = watch()
    user = 'cpu_seconds_total{groupname="db",mode="user"}'
    assert see()[user] == 0
    put(tmp_path, 10, user=700)
    put(tmp_path, 11, user=50, start=900)
    assert see()[user] == 2.5
    end(tmp_path, 10)
    assert see()[user] == 2.5
    put(tmp_path, 11, user=30, start=950)  # the number is another's now
    found = see()
    assert found[user] == 2.8
    assert found['num_procs{groupname="db"}'] == 1
    assert found['oldest_start_time_seconds{groupname="db"}'] == 1009
    end(tmp_path, 11)
    found = see()
    assert (found[user], found['num_procs{groupname="db"}']) == (2.8, 0)
    assert 'oldest_start_time_seconds{groupname="db"}' not in found
    assert found['memory_bytes{groupname="db",memtype="resident"}'] == 0


def test_a_process_with_a_new_name_changes_its_group_and_nothing_shrinks(
    watch: Callable[..., Watch], tmp_path: Path
) -> None:
    put(tmp_path, 10, "sh", minor=5)
    see = watch()
    see()
    put(tmp_path, 10, "sh", minor=9)
    see()
    put(tmp_path, 10, "db", minor=12, rss=3)
    found = see()
    assert found['minor_page_faults_total{groupname="sh"}'] == 4
    assert found['minor_page_faults_total{groupname="db"}'] == 3
    assert found['memory_bytes{groupname="sh",memtype="resident"}'] == 0
    assert found['memory_bytes{groupname="db",memtype="resident"}'] == 3 * 4096


def test_more_groups_than_allowed_share_one_and_it_is_told(
    watch: Callable[..., Watch], tmp_path: Path
) -> None:
    for pid in range(10, 15):
        put(tmp_path, pid, f"p{pid}")
    see = watch(MAX=2)
    found = see()
    assert see.truncated
    assert found['num_procs{groupname="other"}'] == 3
    assert sum(value for series, value in found.items() if series.startswith("num_procs")) == 5
    for pid in range(10, 15):
        end(tmp_path, pid)
    see()
    assert not see.truncated
    put(tmp_path, 20, "late")
    assert see()['num_procs{groupname="late"}'] == 1


def test_the_first_rule_wins_and_children_go_with_their_parent(
    watch: Callable[..., Watch], tmp_path: Path
) -> None:
    put(tmp_path, 10, "db")
    put(tmp_path, 9, "helper", ppid=10)  # a child whose number comes first
    put(tmp_path, 30, "grandchild", ppid=9)
    put(tmp_path, 40, "stranger")
    rules = [{"name": "first", "comm": ["db"]}, {"name": "second", "comm": ["db"]}]
    assert watch(rules)()['num_procs{groupname="first"}'] == 3
    assert watch(rules, CHILDREN=False)()['num_procs{groupname="first"}'] == 1


def test_hostile_names_pass(watch: Callable[..., Watch], tmp_path: Path) -> None:
    put(tmp_path, 10, 'a) b\n("\\\udcff', cmdline='/x/"\n\\')
    (tmp_path / "proc/11").mkdir()
    (tmp_path / "proc/11/stat").write_bytes(b"nonsense")
    (tmp_path / "proc/12").mkdir()  # it has just ended
    see = watch()
    found = see()
    assert found['num_procs{groupname="\\"\\n\\\\"}'] == 1
    assert found["namedprocess_scrape_procread_errors()"] == 1
    see()


def test_what_cannot_be_read_costs_only_itself(
    watch: Callable[..., Watch], tmp_path: Path
) -> None:
    put(tmp_path, 10)
    (tmp_path / "proc/10/io").write_text("nonsense")
    found = watch()()
    assert found["namedprocess_scrape_partial_errors()"] == 1
    assert found['context_switches_total{groupname="db",ctxswitchtype="voluntary"}'] == 0
    assert found['memory_bytes{groupname="db",memtype="resident"}'] == 4096


def test_threads_are_told_by_name_where_asked(watch: Callable[..., Watch], tmp_path: Path) -> None:
    put(tmp_path, 10, threads=2)
    for tid, ticks in (("10", 0), ("11", 4)):
        task = tmp_path / "proc/10/task" / tid
        task.mkdir(parents=True)
        for name in ("status", "io"):
            (task / name).write_bytes((tmp_path / "proc/10" / name).read_bytes())
        (task / "stat").write_text(
            f"{tid} (t{tid}) S 1 0 0 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 2 0 100 0 0\n"
        )
    see = watch(BY_THREAD=True)
    found = see()
    assert found["namedprocess_namegroup_thread_count(db,t11)"] == 1
    stat = tmp_path / "proc/10/task/11/stat"
    stat.write_text(stat.read_text().replace(" 0 4 0 ", " 0 9 0 "))
    put(tmp_path, 10, threads=2, user=5)
    found = see()
    assert found["namedprocess_namegroup_thread_cpu_seconds_total(db,t11,user)"] == 0.05


def test_the_top_has_names_and_no_numbers(watch: Callable[..., Watch], tmp_path: Path) -> None:
    put(tmp_path, 10, rss=5)
    put(tmp_path, 11, rss=6)
    put(tmp_path, 12, "kworker/0:1-x", flags=0x200000)
    see, now = watch(), [100.0]
    see.node.source(ProcessTop).clock = lambda: now[0]
    found = see(processtop.collect)
    assert found == {
        "narthex_process_top_resident_bytes(db,db.service,)": 11 * 4096,
        "narthex_process_top_resident_bytes(kworker,,)": 4096,
    }
    put(tmp_path, 10, user=1000, read=5000, rss=5)
    now[0] += 10
    found = see(processtop.collect)
    assert found["narthex_process_top_cpu_ratio(db,db.service,)"] == 1
    assert found["narthex_process_top_io_bytes_per_second(db,db.service,)"] == 500
    now[0] += 1  # another scraper: the same span
    assert see(processtop.collect) == found


def test_both_collectors_share_one_look(watch: Callable[..., Watch], tmp_path: Path) -> None:
    put(tmp_path, 10, rss=5)
    see = watch([{"name": "x", "comm": ["db"]}])
    see(processtop.collect)
    found = see()
    assert found['open_filedesc{groupname="x"}'] == 0
    assert found['memory_bytes{groupname="x",memtype="resident"}'] == 5 * 4096


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (None, "no list 'process_names'"),
        ({"process_names": []}, "no list"),
        ({"process_names": ["x"]}, "entry 1: must be a mapping"),
        ({"process_names": [{"name": "x"}]}, "entry 1: needs one of"),
        ({"process_names": [{"comm": ["a"]}, {"com": ["a"]}]}, "entry 2: unknown settings: com"),
        ({"process_names": [{"cmdline": ["("]}]}, "no regular expression"),
        ({"process_names": [{"name": "{{.Nope}}", "comm": ["a"]}]}, "none of"),
        ({"process_names": [{"name": "{{.Comm", "comm": ["a"]}]}, "without its"),
        ({"process_names": [{"name": "{{.Matches.x}}", "comm": ["a"]}]}, "no cmdline has"),
        ({"process_names": [{"comm": "a"}]}, "a list of texts"),
    ],
)
def test_a_wrong_configuration_says_what_and_where(data: Any, where: str) -> None:
    with pytest.raises(ValueError, match=re.escape(where)):
        parse(data)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load(str(tmp_path / "absent"))
    (tmp_path / "bad").write_text("a: [")
    with pytest.raises(ValueError, match="is no YAML"):
        load(str(tmp_path / "bad"))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("{{.Comm}}", "db"),
        ("{{ .ExeBase }}-{{.PID}}", "dbd-7"),
        ("{{.ExeFull}}", "/opt/dbd"),
        ("x {{- .Username -}} y", "xrooty"),
        ("{{.Matches.port}}", "54"),
        ("{{.StartTime}}", "1970-01-01 00:00:12.5 +0000 UTC"),
        ("{{.Cgroups}}", "[/a /b]"),
        ("{{index .Cgroups 1}}", "/b"),
    ],
)
def test_templates_are_filled_in(name: str, wanted: str) -> None:
    rules: Rules = parse(
        {"process_names": [{"name": name, "cmdline": ["-p (?P<port>[[:digit:]]+)"]}]}
    )
    subject = Subject(
        comm="db",
        cmdline=["/opt/dbd", "-p", "54"],
        pid="7",
        started=12.5,
        user=lambda: "root",
        cgroups=lambda: ["/a", "/b"],
    )
    assert rules.group(subject) == wanted


@pytest.mark.parametrize(
    ("exe", "name"),
    [
        ("/usr/sbin/cron", "cron"),
        ("-bash", "bash"),
        ("sshd: root@pts/0", "sshd"),
        ("nginx: worker process", "nginx"),
    ],
)
def test_programs_have_their_plain_names(exe: str, name: str) -> None:
    assert program_name(exe) == name


def test_a_short_stat_is_an_error() -> None:
    with pytest.raises(ValueError, match="short"):
        parse_stat(b"1 (x) S 1")


def test_a_real_process_is_followed_to_its_end(make_node: Callable[..., Node]) -> None:
    node = make_node(
        Path("/"),
        settings={
            processgroups.CONFIG: parse(
                {"process_names": [{"name": "it", "cmdline": ["^sleep 98765$"]}]}
            )
        },
    )
    before = len(list(Path("/proc/self/fd").iterdir()))
    child = subprocess.Popen(["sleep", "98765"])
    try:
        time.sleep(0.1)
        text = str(look(processgroups.collect, node.fresh()).samples)
        assert 'num_procs{groupname="it"} 1' in text
        child.send_signal(signal.SIGKILL)
        child.wait()
        text = str(look(processgroups.collect, node.fresh()).samples)
        assert 'num_procs{groupname="it"} 0' in text
    finally:
        child.kill()
        child.wait()
        node.sources.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
