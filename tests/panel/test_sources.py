"""What the panel's files must hold to: translations, assets, no way around escaping."""

import gettext
import gzip
import hashlib
import io
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from flask.testing import FlaskClient

import narthex_panel
from narthex_panel import messages
from narthex_panel.assets import Assets
from narthex_panel.i18n import TRANSLATIONS

PACKAGE = Path(narthex_panel.__file__).parent
STATIC = PACKAGE / "static"
VENDOR = STATIC / "vendor"
TEMPLATES = sorted((PACKAGE / "templates").rglob("*.html"))
SCRIPTS = sorted((STATIC / "js").glob("*.js"))


def ids(catalog: Catalog) -> set[str]:
    return {str(one.id) for one in catalog if one.id}


def test_every_string_is_translated() -> None:
    catalog = messages.read("ru")
    assert ids(messages.extracted()) == ids(catalog), "run python -m narthex_panel.messages"
    for one in catalog:
        if one.id:
            plural = isinstance(one.id, tuple | list)
            strings = tuple(one.string or ()) if plural else (one.string,)
            assert len(strings) == (3 if plural else 1)
            assert all(strings), f"{one.id} has no translation"
            assert not one.fuzzy, f"{one.id} is fuzzy"


def test_translations_keep_the_placeholders() -> None:
    for one in messages.read("ru"):
        if one.id:
            assert [str(error) for error in one.check()] == []


def strings(compiled: bytes) -> dict[str, str]:
    """Give what a compiled catalogue says, without which Babel wrote it."""
    found: dict[str, str] = dict(gettext.GNUTranslations(io.BytesIO(compiled))._catalog)  # type: ignore[attr-defined]  # no other way in
    found[""] = re.sub("Generated-By: [^\n]*", "", found[""])
    return found


def test_the_compiled_translations_are_those_that_stand_in_the_source() -> None:
    path = TRANSLATIONS / "ru" / "LC_MESSAGES" / "messages.mo"
    assert strings(path.read_bytes()) == strings(messages.compiled(messages.read("ru")))


def test_plural_forms_are_right(client: FlaskClient) -> None:
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "ru"
    text = client.get("/nodes/web-1/overview").text
    assert "1 час<" in text
    assert "6 часов<" in text
    assert "24 часа<" in text


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_leave_escaping_on_and_carry_no_inline_code(path: Path) -> None:
    text = path.read_text()
    for banned in ("|safe", "| safe", "autoescape", "style=", "<style", " onclick", "hx-on"):
        assert banned not in text
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"https?://(?!\")", text.replace('"https://", "http://"', ""))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_say_nothing_that_cannot_be_translated(path: Path) -> None:
    text = re.sub(r"\{[{%#].*?[}%#]\}", "", path.read_text(), flags=re.DOTALL)
    bare = [part.strip() for part in re.findall(r">([^<>]*[A-Za-z]{2,}[^<>]*)<", text)]
    names = {"Narthex", "LogQL", "systemd", "UTC", "· Narthex"}
    assert [part for part in bare if part not in names] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_of_text(path: Path) -> None:
    text = path.read_text()
    for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert banned not in text
    if path.name != "dom.js":
        assert "DOMParser" not in text


def test_vendored_files_are_the_ones_that_were_fetched() -> None:
    lines = (VENDOR / "SHA256SUMS").read_text().splitlines()
    known = {name: digest for digest, name in (one.split("  ") for one in lines)}
    found = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert found == known
    assert {path.parent.name for path in VENDOR.rglob("LICENSE")} == {
        path.name for path in VENDOR.iterdir() if path.is_dir()
    }


def test_the_sprite_holds_exactly_the_icons_in_use() -> None:
    sprite = (VENDOR / "tabler-icons" / "sprite.svg").read_text()
    shipped = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    code = "".join(path.read_text() for path in (*TEMPLATES, *sorted(PACKAGE.rglob("*.py"))))
    used = {name for name in shipped if re.search(rf"""['"]{re.escape(name)}['"]""", code)}
    assert shipped == used
    named = set(re.findall(r'icon\("([a-z0-9-]+)"', code)) | set(
        re.findall(r'icon="([a-z0-9-]+)"', code)
    )
    assert named <= shipped


def test_a_first_visit_is_small() -> None:
    used = (
        "css/panel.css",
        "js/charts.js",
        "js/panel.js",
        "vendor/htmx/htmx.min.js",
        "vendor/tabler-icons/sprite.svg",
        "vendor/tabler/tabler.min.css",
        "vendor/uplot/uplot.min.js",
    )
    assert sum(len(gzip.compress((STATIC / name).read_bytes())) for name in used) < 200_000


def test_files_are_served_compressed_and_kept_by_browsers(client: FlaskClient) -> None:
    address = Assets().url("css/panel.css")
    reply = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert reply.headers["Content-Encoding"] == "gzip"
    assert "immutable" in reply.headers["Cache-Control"]
    assert gzip.decompress(reply.data) == (STATIC / "css/panel.css").read_bytes()
    plain = client.get(address.replace(Assets().version, "old"))
    assert plain.headers["Cache-Control"] == "no-cache"
    assert client.get("/static/panel/x/../page.py").status_code == 404
    assert client.get("/static/panel/x/..%2f..%2fpage.py").status_code == 404
