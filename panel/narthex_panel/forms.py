"""Derive a form from the JSON schema of declared parameters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_CLASS: Final = re.compile(r"\[(?:\\.|[^\]\\])*\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form.

    ``kind`` is ``text``, ``number``, ``choice``, ``switch``, ``list`` (of texts, one a line) or
    ``lines`` (one text of many lines).
    """

    name: str
    kind: str
    title: str
    description: str = ""
    required: bool = True
    default: str = ""
    example: str = ""
    pattern: str = ""
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()


def fields_of(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """Read the fields from a pydantic model's JSON schema, in the order of declaration."""
    required = set(schema.get("required", ()))
    return tuple(
        _field(name, _resolved(part, schema), required=name in required)
        for name, part in schema.get("properties", {}).items()
    )


def parse(fields: tuple[Field, ...], form: Mapping[str, str]) -> dict[str, Any]:
    """Turn a form's strings into parameters; what cannot be is left for validation to refuse."""
    found: dict[str, Any] = {}
    for field in fields:
        if field.kind == "switch":
            found[field.name] = form.get(field.name) in {"1", "on", "true"}
        elif field.name in form and (form[field.name] or field.required):
            value = form[field.name]
            found[field.name] = _parsed(field, value)
    return found


def written(value: Any) -> str:
    """Write a parameter as a form holds it: what ``parse`` reads back."""
    if isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    return ("1" if value else "") if isinstance(value, bool) else str(value)


def _parsed(field: Field, value: str) -> Any:
    if field.kind == "number" and _INTEGER.fullmatch(value.strip()):
        return int(value)
    # Browsers send line breaks as CR LF.
    text = value.replace("\r\n", "\n")
    if field.kind == "list":
        return [line for line in text.split("\n") if line]
    return text if field.kind == "lines" else value


def complete(fields: tuple[Field, ...], params: Mapping[str, Any]) -> bool:
    """Tell whether every required parameter is there."""
    return all(params.get(field.name, "") not in ("", []) for field in fields if field.required)


def html_pattern(pattern: str) -> str:
    """Rewrite a regular expression for HTML's ``pattern``.

    Browsers compile it with the ``v`` flag, where a bare ``-`` at a class's end, and some other
    characters, are errors: the check would vanish silently. They also anchor it themselves.
    """
    bare = pattern.removeprefix("^").removesuffix("$")
    return _CLASS.sub(lambda match: _class(match.group()), bare)


def _class(text: str) -> str:
    inner = text[1:-1]
    negated = "^" if inner.startswith("^") else ""
    inner = inner[len(negated) :]
    # A hyphen that makes no range stands first or last.
    first = "\\-" if inner.startswith("-") else ""
    inner = inner[1:] if first else inner
    last = "\\-" if inner.endswith("-") and not inner.endswith("\\-") else ""
    inner = inner[:-1] if last else inner
    inner = re.sub(r"(?<!\\)([()\[{}/|])", r"\\\1", inner)
    return f"[{negated}{first}{inner}{last}]"


def _field(name: str, part: Mapping[str, Any], *, required: bool) -> Field:
    examples = part.get("examples") or ("",)
    default = None if part.get("type") == "boolean" else part.get("default")
    # What may be left out stands first, so that nothing is chosen by the way.
    optional = "enum" in part and not required and default is None
    return Field(
        name=name,
        kind=_kind(part),
        title=str(part.get("title", name)),
        description=str(part.get("description", "")),
        required=required,
        default="" if default is None else written(default),
        example=str(examples[0]),
        pattern=html_pattern(str(part.get("pattern", ""))),
        max_length=part.get("maxLength"),
        minimum=part.get("minimum"),
        maximum=part.get("maximum"),
        choices=(*(("",) if optional else ()), *map(str, part.get("enum", ()))),
    )


def _kind(part: Mapping[str, Any]) -> str:
    if "enum" in part:
        return "choice"
    if part.get("format") == "multiline":
        return "lines"
    kinds = {"integer": "number", "boolean": "switch", "array": "list"}
    return kinds.get(str(part.get("type")), "text")


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    given = [one for one in part.get("anyOf", ()) if one.get("type") != "null"]
    if len(given) == 1:
        part = {**given[0], **{key: value for key, value in part.items() if key != "anyOf"}}
    reference = part.get("$ref")
    if reference is None and len(part.get("allOf", ())) == 1:
        reference = part["allOf"][0].get("$ref")
    if reference is None:
        return part
    target = schema.get("$defs", {}).get(str(reference).rpartition("/")[2], {})
    # What stands beside the reference tells of this field, the target of its type.
    return {**target, **{key: value for key, value in part.items() if key != "$ref"}}
