"""Write the reference of actions, queries and live streams from their declarations."""

from typing import Any

from narthex_exporter import actions, follows, queries
from narthex_exporter.contract.spec import Action, Follow, Query


def markdown() -> str:
    """Give docs/reference/actions.md."""
    parts = [
        "# Actions and queries",
        "Generated from the declarations in `narthex_exporter/{actions,queries}`.",
        "## Actions",
        _overview(),
        *(_action(one) for _, one in sorted(actions.CATALOGUE.items())),
        "## Queries",
        *(_query(one) for _, one in sorted(queries.CATALOGUE.items())),
        "## Live streams",
        *(_query(one) for _, one in sorted(follows.CATALOGUE.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _overview() -> str:
    rows = [
        f"| [`{name}`](#{_anchor(name)}) | {one.title} | {one.danger} |"
        f" {f'`{one.inverse}`' if one.inverse else ''} |"
        for name, one in sorted(actions.CATALOGUE.items())
    ]
    return "\n".join(("| action | what | danger | undone by |", "|---|---|---|---|", *rows))


def _action(one: Action[Any]) -> str:
    facts = [
        f"- danger: **{one.danger}**",
        f"- permission: `{one.permission}`",
        f"- takes at most {one.timeout_seconds:g} s",
    ]
    if one.needs:
        facts.append(f"- needs: {', '.join(sorted(one.needs))}")
    if one.root_equivalent:
        facts.append("- equals root access: off unless the node's policy names it")
    text = [f"### {one.name}", f"{one.title}. {one.summary}", one.description, "\n".join(facts)]
    return "\n\n".join(part for part in (*text, _table(one.params.model_json_schema())) if part)


def _query(one: Query[Any, Any] | Follow[Any, Any]) -> str:
    facts = [f"- permission: `{one.permission}`"]
    if one.needs:
        facts.append(f"- needs: {', '.join(sorted(one.needs))}")
    result = one.result.model_json_schema()
    returns = "Returns: " + ", ".join(f"`{name}`" for name in result["properties"]) + "."
    text = [f"### {one.name}", f"{one.title}. {one.summary}", "\n".join(facts), returns]
    return "\n\n".join(part for part in (*text, _table(one.params.model_json_schema())) if part)


def _table(schema: dict[str, Any]) -> str:
    if not schema.get("properties"):
        return ""
    required = set(schema.get("required", ()))
    rows = []
    for name, raw in schema["properties"].items():
        field = _resolved(raw, schema)
        default = "required" if name in required else f"default `{field.get('default')}`"
        about = field.get("description") or field.get("title", "")
        rows.append(
            f"| `{name}` | {_type(field)} | {default} | {about.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(("| parameter | type | | |", "|---|---|---|---|", *rows))


def _resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Put a referenced definition below the field's own words."""
    name = field.get("$ref", "").rpartition("/")[2]
    return {**schema["$defs"][name], **field} if name else field


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    bounds = [str(field[key]) for key in ("minimum", "maximum") if key in field]
    return f"{field.get('type', '')} {' to '.join(bounds)}".strip()


def _anchor(name: str) -> str:
    return name.replace(".", "")
