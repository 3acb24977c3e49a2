"""Text from nodes never becomes markup, wherever it stands."""

from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import product

from flask.testing import FlaskClient
from tests.panel.fakes import World
from typing_extensions import override

_VECTORS = (
    "<script>pwned=1</script>",
    "<img src=x onerror=pwned=1>",
    "<svg onload=pwned=1>",
    "<svg><script>pwned=1</script></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'>",
    "<details open ontoggle=pwned=1>",
    "<a href=javascript:pwned=1>x</a>",
    "<style>*{display:none}</style>",
    "<form action=//evil><button>",
    "<body onload=pwned=1>",
    "<math><mtext></table><img src onerror=pwned=1>",
    "<base href=//evil>",
    "<meta http-equiv=refresh content='0;//evil'>",
    "<object data=//evil>",
    "<template><img src onerror=pwned=1></template>",
    "<div hx-get=/settings hx-trigger=load>",
    "<div data-live=/live/fleet>",
    "<tr data-row=1><td>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "%(name)s %s %d {0}",
    "javascript:pwned=1",
    "\x1b]8;;javascript:pwned=1\x07x\x1b]8;;\x07",
    "<!--",
    "<![CDATA[",
)
_BREAKS = (
    "",
    '"',
    "'",
    '">',
    "'>",
    "</td>",
    "</pre>",
    "</title>",
    "</textarea>",
    "--><",
    "\x00<",
    "\u2028",
    "&lt;",
    "\ufeff",
)
_PAYLOADS = tuple(before + vector for before, vector in product(_BREAKS, _VECTORS))

_ADDRESSES = (
    "/",
    "/nodes/web-1/overview",
    "/nodes/web-1/processes",
    "/nodes/web-1/services",
    "/nodes/web-1/services/nginx.service",
    "/nodes/web-1/logs",
    "/nodes/web-1/actions/service.restart?unit=nginx.service",
    "/alerts",
    "/alerts/a1",
    "/logs",
    "/runs",
    "/runs/0190-b",
    "/audit",
)


class Structure(HTMLParser):
    """Keep elements and the names of their attributes, which no text may change."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(name for name, _ in attrs)))


def structure(client: FlaskClient, address: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = Structure()
    parser.feed(client.get(address).text)
    return parser.seen


def changed(client: FlaskClient, world: World, addresses: tuple[str, ...]) -> Iterator[str]:
    payload, world.text = world.text, "harmless"
    plain = {address: structure(client, address) for address in addresses}
    world.text = payload
    for address in addresses:
        if structure(client, address) != plain[address]:
            yield address


def test_there_are_many_payloads() -> None:
    assert len(set(_PAYLOADS)) >= 300


def test_no_payload_adds_an_element_or_an_attribute(client: FlaskClient, world: World) -> None:
    page = "/nodes/web-1/services/nginx.service"
    world.text = "harmless"
    plain = structure(client, page)
    for world.text in _PAYLOADS:
        assert structure(client, page) == plain, world.text


def test_no_page_lets_markup_through(client: FlaskClient, world: World) -> None:
    for world.text in _PAYLOADS[:: len(_VECTORS) + 1]:
        assert list(changed(client, world, _ADDRESSES)) == [], world.text
