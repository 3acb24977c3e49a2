"""The containers of one node, their images, volumes and networks."""

from collections.abc import Mapping
from typing import Any, Final

from flask import request
from flask_babel import lazy_gettext

from narthex_operator.services.views import ActorView
from narthex_panel.node_frame import blocked, followed, frame, query_state, why_not
from narthex_panel.page import Answer, Page, Ui

page: Final = Page(
    name="containers", title=lazy_gettext("Containers"), permission="query:container.list"
)

ACTIONS: Final = (
    "container.start",
    "container.stop",
    "container.restart",
    "container.pause",
    "container.unpause",
    "container.kill",
    "container.update",
    "container.rename",
    "container.remove",
    "container.run",
    "container-network.connect",
)
# A kind's query, the key of its answer, and the actions that its page offers.
KINDS: Final = {
    "images": ("image.list", "images", ("image.pull", "image.tag", "image.remove", "image.prune")),
    "volumes": ("volume.list", "volumes", ("volume.create", "volume.remove", "volume.prune")),
    "networks": (
        "container-network.list",
        "networks",
        (
            "container-network.create",
            "container-network.remove",
            "container-network.connect",
            "container-network.disconnect",
            "container-network.prune",
        ),
    ),
}
STATS: Final = "container.stats"
LINES: Final = (200, 1000, 5000)
_MATCH_CHARACTERS: Final = 256


@page.get("/nodes/<ref>/containers")
def show(ui: Ui, ref: str) -> Answer:
    """List the containers, those that failed first."""
    found = frame(ui, ref, "containers")
    state = query_state(ui, ref, "container.list", {})
    containers = sorted(state["answer"]["containers"], key=_rank) if state["answer"] else []
    template = "containers_table.html" if ui.is_fragment else "containers.html"
    return ui.render(
        template,
        frame=found,
        containers=containers,
        kind="containers",
        usage=_usage(ui, ref, state["actor"], containers),
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


@page.get("/nodes/<ref>/containers/<engine>/<name>", permission="query:container.get")
def detail(ui: Ui, ref: str, engine: str, name: str) -> Answer:
    """Show one container with what it writes, or what of that holds a text."""
    found = frame(ui, ref, "containers")
    state = query_state(ui, ref, "container.get", {"engine": engine, "container": name})
    match = request.args.get("q", "")[:_MATCH_CHARACTERS]
    lines = request.args.get("lines", LINES[0], type=int)
    lines = lines if lines in LINES else LINES[0]
    wanted = {"engine": engine, "containers": [name], "lines": lines}
    can_follow = followed(ui, state["actor"], "container.logs", wanted)
    # What is searched for, and what lies further back, stands still.
    live = None if match or lines != LINES[0] else can_follow
    logs = None
    if state["answer"] and ui.may("query:container.logs"):
        logs = query_state(ui, ref, "container.logs", {**wanted, "match": match})
    return ui.render(
        "container.html",
        frame=found,
        engine=engine,
        name=name,
        logs=logs,
        live=live,
        can_follow=can_follow is not None,
        match=match,
        lines=lines,
        choices=LINES,
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


@page.get("/nodes/<ref>/containers/images", permission="query:image.list")
def images(ui: Ui, ref: str) -> Answer:
    """List images, with who uses them."""
    return _things(ui, ref, "images", {})


@page.get("/nodes/<ref>/containers/volumes", permission="query:volume.list")
def volumes(ui: Ui, ref: str) -> Answer:
    """List volumes with their sizes, and who uses them."""
    return _things(ui, ref, "volumes", {"with_sizes": True})


@page.get("/nodes/<ref>/containers/networks", permission="query:container-network.list")
def networks(ui: Ui, ref: str) -> Answer:
    """List networks, with who is on them."""
    return _things(ui, ref, "networks", {})


def _things(ui: Ui, ref: str, kind: str, params: dict[str, Any]) -> Answer:
    query, key, actions = KINDS[kind]
    found = frame(ui, ref, "containers")
    state = query_state(ui, ref, query, params)
    usage = None
    if state["answer"] and ui.may("query:container.disk-usage") and kind != "networks":
        usage = query_state(ui, ref, "container.disk-usage", {})
    return ui.render(
        "container_things.html",
        frame=found,
        kind=kind,
        things=state["answer"][key] if state["answer"] else [],
        usage=usage,
        blocked=blocked(ui, state["actor"], actions),
        **state,
    )


def _usage(
    ui: Ui, ref: str, actor: ActorView, containers: list[dict[str, Any]]
) -> dict[tuple[str, str], Mapping[str, Any]] | None:
    """Look up what each running container uses; ``None`` where that is not to be had here."""
    if not ui.may(f"query:{STATS}") or why_not(actor, STATS, query=True):
        return None
    if not any(one["state"] in {"running", "paused"} for one in containers):
        return {}
    told = query_state(ui, ref, STATS, {})["answer"]
    return {(one["engine"], one["name"]): one for one in told["stats"]} if told else {}


def _rank(one: Mapping[str, Any]) -> tuple[int, str]:
    if one["state"] in {"dead", "restarting"} or one["health"] == "unhealthy":
        return 0, one["name"]
    if one["state"] == "exited" and one["exit_code"]:
        return 1, one["name"]
    order = {"paused": 2, "created": 4, "exited": 5}
    return order.get(one["state"], 3), one["name"]
