"""The pages of supervisord's programs."""

import re

from flask.testing import FlaskClient
from tests.panel.fakes import World

FRAGMENT = {"HX-Request": "true"}
LIST = "/nodes/web-1/programs"


def row(page: str, name: str) -> str:
    found = re.search(rf'<tr data-row="{name}".*?</tr>', page, re.DOTALL)
    assert found, name
    return found[0]


def acts(part: str) -> list[str]:
    return re.findall(r"hx-get=\"[^\"]*/actions/(supervisor\.[a-z]+)\?program=", part)


def test_what_failed_stands_first_and_each_has_the_levers_that_fit(client: FlaskClient) -> None:
    page = client.get(LIST, headers=FRAGMENT).text
    assert re.findall(r'<tr data-row="([^"]*)"', page) == [
        "mailer:mailer", "report:report", "queue:queue", "shop:web_0", "shop:web_1",
        "migrate:migrate", "debug:debug",
    ]  # fmt: skip
    assert acts(row(page, "shop:web_0")) == ["supervisor.restart", "supervisor.stop"]
    assert acts(row(page, "queue:queue")) == ["supervisor.start", "supervisor.stop"]
    assert acts(row(page, "debug:debug")) == ["supervisor.start"]
    assert "exit status 3" in row(page, "report:report")
    assert 'data-state="fatal"' in row(page, "report:report")
    assert 'data-state="exited"' in row(page, "migrate:migrate")
    assert "exit status" not in row(page, "migrate:migrate")


def test_one_program_is_shown_with_what_it_printed(client: FlaskClient) -> None:
    page = client.get(f"{LIST}/shop:web_0").text
    assert "line 39: took job" in page
    assert acts(page) == ["supervisor.restart", "supervisor.stop"]
    assert "error 39: took job" in client.get(f"{LIST}/shop:web_0?of=errors").text
    gone = client.get(f"{LIST}/no:no").text
    assert "supervisord has no such program on this node" in gone
    assert "took job" not in gone


def test_they_are_offered_only_where_there_is_a_supervisord(
    client: FlaskClient, world: World
) -> None:
    services = "/nodes/web-1/services"
    assert f'href="{LIST}"' in client.get(services).text
    # A node without systemd may have supervisord all the same.
    world.systemd = False
    assert f'href="{LIST}"' in client.get(services).text
    world.unanswered["supervisor.list"] = "supervisord is not running"
    assert f'href="{LIST}"' not in client.get(services).text
    page = client.get(LIST).text
    assert "supervisord is not running" in page
    assert "shop:web_0" not in page


def test_who_may_not_act_sees_why(client: FlaskClient, world: World) -> None:
    world.unanswered["supervisor.tail"] = "supervisord hangs"
    world.forbidden["supervisor.stop"] = "this node&#39;s policy says no"
    page = client.get(f"{LIST}/shop:web_0").text
    assert acts(page) == ["supervisor.restart"]
    assert "policy says no" in page
    assert "supervisord hangs" in page
