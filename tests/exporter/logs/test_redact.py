"""Secrets that must not leave the node in a log line."""

import time

import pytest

from narthex_exporter.logs.config import RedactRule
from narthex_exporter.logs.record import Counters
from narthex_exporter.logs.redact import MASK, Redactor


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("password=hunter2 user=bob", f"password={MASK} user=bob"),
        ("db_password: 'a b c', x", f"db_password: {MASK}, x"),
        ('{"password": "a b", "user": "bob"}', f'{{"password": {MASK}, "user": "bob"}}'),
        ("PGPASSWORD=x psql", f"PGPASSWORD={MASK} psql"),
        ("api_key=abc&next=1", f"api_key={MASK}&next=1"),
        ("client-secret = s3cr3t", f"client-secret = {MASK}"),
        ("Authorization: Bearer abc.def-123", f"Authorization: {MASK}"),
        ("authorization: Basic dXNlcjpwYXNz", f"authorization: {MASK}"),
        ("got bearer abcdefghij1234", f"got bearer {MASK}"),
        ("postgres://u:p4ss@db/x", f"postgres://u:{MASK}@db/x"),
        ("key AKIAIOSFODNN7EXAMPLE used", f"key {MASK} used"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7", f"AWS_SECRET_ACCESS_KEY={MASK}"),
        ("t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF_123-x", f"t {MASK}"),
        ("ghp_" + "a" * 36, MASK),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b", f"a {MASK} b"),
    ],
)
def test_a_secret_is_taken_out(line: str, clean: str) -> None:
    counters = Counters()
    assert Redactor(counters).clean("s", line) == clean
    assert sum(counters.redactions.values()) >= 1


@pytest.mark.parametrize(
    "line",
    [
        "Failed password for root from 10.0.0.1 port 22 ssh2",
        "GET /keys?page=2 200",
        "token bucket is full",
        "https://example.org/a:b/c@d",
        "-----BEGIN CERTIFICATE-----",
        "the bearer of news",
    ],
)
def test_an_ordinary_line_stays_as_it_is(line: str) -> None:
    assert Redactor(Counters()).clean("s", line) == line


def test_a_private_key_over_many_lines_is_taken_out_of_its_source_only() -> None:
    redactor = Redactor(Counters())
    key = ["x -----BEGIN PRIVATE KEY-----", "MIIEvQIB", "ADANBgkq", "-----END PRIVATE KEY----- y"]
    found = []
    for line in key:
        found.append(redactor.clean("a", line))
        assert redactor.clean("b", "plain") == "plain"
    assert found == [f"x {MASK}", MASK, MASK, f"{MASK} y"]
    assert redactor.clean("a", "plain") == "plain"


def test_a_key_that_never_ends_does_not_hide_everything() -> None:
    redactor = Redactor(Counters())
    redactor.clean("a", "-----BEGIN PRIVATE KEY-----")
    assert [redactor.clean("a", "x") for _ in range(300)].count("x") == 100


def test_own_rules_are_added() -> None:
    rule = RedactRule(name="card", pattern=r"\b\d{4}-\d{4}\b")
    assert Redactor(Counters(), (rule,)).clean("s", "card 1234-5678") == f"card {MASK}"


@pytest.mark.parametrize(
    "piece", ["password=", "a://", "eyJa.", "Bearer ", "x" * 50, "-----BEGIN "]
)
def test_hostile_lines_cost_little(piece: str) -> None:
    line = (piece * 262144)[:262144]
    began = time.process_time()
    Redactor(Counters()).clean("s", line)
    assert time.process_time() - began < 2.0
