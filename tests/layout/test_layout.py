"""Guard the tree: its sharp edges, its completeness, its size."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from narthex_exporter import cli

ROOT = Path(__file__).parents[2]
IMPORT_ROOTS = ("exporter", "operator", "panel", "loki")
TRACKED = [
    ROOT / line
    for line in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
]
CODE = [
    path
    for path in TRACKED
    if path.suffix == ".py" and path.exists() and "migrations" not in path.parts
]


def test_operator_folder_does_not_shadow_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import operator; print(operator.itemgetter)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_import_roots_and_test_folders_are_not_packages() -> None:
    folders = [ROOT / name for name in IMPORT_ROOTS]
    folders += [path for path in (ROOT / "tests").rglob("*") if path.is_dir()]
    assert not [path for path in folders if (path / "__init__.py").exists()]


@pytest.mark.parametrize(
    "name",
    [
        "exporter", "operator", "prometheus", "loki", "alertmanager", "panel", "tests",
        "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE",
        "docs/protocol.md", "docs/glossary.md", "docs/run-json.md", "docs/adr",
    ],
)  # fmt: skip
def test_the_tree_has(name: str) -> None:
    assert (ROOT / name).exists()


def test_no_module_grows_past_600_lines() -> None:
    assert not {
        str(path.relative_to(ROOT)): lines
        for path in CODE
        if (lines := path.read_text().count("\n")) > 600
    }


def test_every_module_says_what_it_is_for() -> None:
    modules = [p for p in CODE if p.parts[len(ROOT.parts)] in IMPORT_ROOTS]
    assert not [p for p in modules if not p.read_text().startswith(('"""', 'r"""'))]


def test_only_named_modules_start_processes() -> None:
    starts = {
        str(path.relative_to(ROOT))
        for path in CODE
        if path.parts[len(ROOT.parts)] in IMPORT_ROOTS
        and re.search(
            r"^(?:import|from) subprocess\b|os\.(?:system|popen|exec|spawn)",
            path.read_text(),
            re.MULTILINE,
        )
    }
    assert starts == {
        "exporter/narthex_exporter/actor/runner.py",
        "exporter/narthex_exporter/logs/journal.py",
        "exporter/narthex_exporter/serving.py",
        "exporter/narthex_exporter/sources/programs.py",
        "operator/narthex_operator/local/commands.py",
        "operator/narthex_operator/local/processes.py",
        "operator/narthex_operator/local/stack.py",
    }  # fmt: skip


def test_nothing_large_is_tracked() -> None:
    assert not [path for path in TRACKED if path.exists() and path.stat().st_size > 2 << 20]


def test_no_path_of_a_workplace_is_committed() -> None:
    # Spelt apart, so that this file does not find itself.
    marks = ["/" + "work/", "/" + "tmp/bash_jobs"]
    texts = [p for p in TRACKED if p.suffix in {".py", ".md", ".yml", ".yaml", ".toml", ".sh", ""}]
    assert not [
        p for p in texts if p.is_file() and any(m in p.read_text(errors="ignore") for m in marks)
    ]


def test_own_commands_are_those_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["narthex.commands"]
    own = {name: point for name, point in declared.items() if point.startswith("narthex_exporter")}
    assert {name: ":".join(where) for name, where in cli._OWN.items()} == own
