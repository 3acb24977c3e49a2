"""Plan an action, show what it would do, ask what its danger asks for, run it."""

from typing import Any, Final

from flask import request
from flask_babel import gettext, lazy_gettext

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.spec import Action
from narthex_exporter.contract.wire import new_run_id
from narthex_operator.errors import DeniedError, NotFoundError, OperatorError
from narthex_panel.forms import Field, complete, fields_of, parse
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import see_other

# Which action it is, and so which permission it needs, stands in the path: the service checks.
page: Final = Page(name="actions", title=lazy_gettext("Action"), permission="node:read")


@page.get("/nodes/<ref>/actions/<name>")
def plan(ui: Ui, ref: str, name: str) -> Answer:
    """Show the plan: nothing is changed by it."""
    declared = _declared(name)
    fields = fields_of(declared.params.model_json_schema())
    given = parse(fields, {**_defaults(fields), **request.args.to_dict()})
    return _show(ui, ref, declared, fields, given)


@page.post("/nodes/<ref>/actions/<name>")
def submit(ui: Ui, ref: str, name: str) -> Answer:
    """Run what was shown."""
    declared = _declared(name)
    fields = fields_of(declared.params.model_json_schema())
    params = parse(fields, request.form.to_dict())
    try:
        run = ui.services.runs.submit(
            ui.actor,
            ref,
            name,
            params,
            plan=request.form.get("plan", ""),
            reason=request.form.get("reason", "").strip(),
            confirmation=request.form.get("confirmation", ""),
            run_id=request.form.get("run_id") or None,
        )
    except DeniedError:
        raise
    except OperatorError as error:
        return _show(ui, ref, declared, fields, params, refusal=error)
    if ui.is_fragment:
        return ui.render("run_drawer.html", run=run)
    return see_other(f"/runs/{run.id}")


def show_plan(ui: Ui, ref: str, name: str, params: dict[str, Any]) -> Answer:
    """Show the plan of an action whose parameters another page has asked for."""
    declared = _declared(name)
    fields = fields_of(declared.params.model_json_schema())
    return _show(ui, ref, declared, fields, params, chosen=frozenset(params))


def _show(
    ui: Ui,
    ref: str,
    declared: Action[Any],
    fields: tuple[Field, ...],
    params: dict[str, Any],
    *,
    refusal: NarthexError | None = None,
    chosen: frozenset[str] = frozenset(),
) -> Answer:
    fixed = tuple(dict.fromkeys((*_fixed(fields), *(one for one in params if one in chosen))))
    view, problem = None, None
    if complete(fields, params):
        try:
            view = ui.services.runs.plan(ui.actor, ref, declared.name, params)
        except DeniedError:
            raise
        except NarthexError as error:
            problem = error
    return ui.render(
        "plan_dialog.html" if ui.is_fragment else "plan.html",
        node=ui.services.nodes.get(ui.actor, ref),
        action=declared,
        # What the person did not choose in the table is what the form still asks.
        asked=[field for field in fields if field.name not in fixed],
        fixed={name: params[name] for name in fixed if name in params},
        params=params,
        view=view,
        problem=problem or refusal,
        reason=request.form.get("reason", ""),
        run_id=new_run_id(),
        # What a node offers instead is shown only if we know it ourselves.
        offered=CATALOGUE,
    )


def _fixed(fields: tuple[Field, ...]) -> tuple[str, ...]:
    named = set(request.values.getlist("fixed"))
    return tuple(field.name for field in fields if field.name in named)


def _defaults(fields: tuple[Field, ...]) -> dict[str, str]:
    return {field.name: field.default for field in fields if field.default}


def _declared(name: str) -> Action[Any]:
    found = CATALOGUE.get(name)
    if found is None:
        raise NotFoundError(
            gettext("There is no action %(name)s.", name=name),
            hint=gettext("choose one on the node's pages"),
        )
    return found
