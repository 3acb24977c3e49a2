"""``run.json`` is a contract: docs/run-json.md shows the example that is read here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.contract.errors import NarthexError
from narthex_operator.local.runfile import RunFile, read_run_file, write_json

DOCUMENT = Path(__file__).parents[3] / "docs" / "run-json.md"


def example() -> dict[str, Any]:
    found = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items()}
    return [keys(inner) for inner in value] if isinstance(value, list) else None


def test_the_document_shows_exactly_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, RunFile.model_validate(example()))
    assert json.loads(path.read_text()) == example()


def test_its_shape_is_the_promised_one() -> None:
    assert keys(example()) == {
        "panel": dict.fromkeys(("url", "ca_file", "credentials_file")),
        "api_token_file": None,
        "prometheus": {"url": None},
        "alertmanager": {"url": None},
        "logs": {"url": None},
        "scrape": dict.fromkeys(("ca_file", "cert_file", "key_file")),
        "operator_client": dict.fromkeys(("cert_file", "key_file")),
        "nodes": [
            {
                "name": None,
                "id": None,
                "url": None,
                "pids": dict.fromkeys(("exporter", "actor")),
            }
        ],
        "pids": dict.fromkeys(("operator", "signer", "logstore", "prometheus", "alertmanager")),
    }


def test_it_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", RunFile.model_validate(example()))
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("content", [None, "", "[]", '{"panel": 1}'])
def test_a_missing_or_broken_file_is_told_in_words(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NarthexError, match=r"run\.json|run file"):
        read_run_file(path)
