import time

import pytest

from narthex_exporter.queries.masking import masked


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["nginx", "-g", "daemon off;"], "nginx -g daemon off;"),
        (["app", "--password=hunter2"], "app --password=***"),
        (["app", "--password=a b c"], "app --password=***"),
        (["app", "--password", "hunter2", "-v"], "app --password *** -v"),
        (["app", "--password", "-v"], "app --password -v"),
        (["app", "--db-passwd", "x"], "app --db-passwd ***"),
        (["app", "-token", "x"], "app -token ***"),
        (["app", "--API-KEY=x"], "app --API-KEY=***"),
        (["app", "--apikey", "x"], "app --apikey ***"),
        (["java", "-Dsecret.key=x", "-jar", "a.jar"], "java -Dsecret.key=*** -jar a.jar"),
        (["sh", "-c", "PGPASSWORD=x psql"], "sh -c PGPASSWORD=***"),
        (["sh", "-c", "app --token x --go"], "sh -c app --token *** --go"),
        (["curl", "-H", "Authorization: Bearer abc"], "curl -H Authorization: Bearer ***"),
        (["psql", "postgres://u:pw@host/db"], "psql postgres://u:***@host/db"),
        (["/usr/bin/mysql", "-uroot", "-pX"], "/usr/bin/mysql -uroot -p***"),
        (["ssh", "-p22", "host"], "ssh -p22 host"),
        (["app", '{"password": "x"}'], 'app {"password": ***'),
        (["passwd", "alice"], "passwd alice"),
        ([], ""),
        ([""], ""),
    ],
)
def test_values_that_look_secret_are_masked(arguments: list[str], shown: str) -> None:
    assert masked(arguments) == shown


@pytest.mark.parametrize(
    "hostile",
    ["a" * 4000, "password" * 500, "-" * 4000, "://" * 1300, "/" * 4000, " -" * 2000,
     "token " * 600, "bearer " * 500, "://:" * 1000, "passwd" * 600 + " =", "a/" * 2000],
)  # fmt: skip
def test_no_command_line_takes_long_to_mask(hostile: str) -> None:
    began = time.process_time()
    masked([hostile] * 20)
    assert time.process_time() - began < 0.5
