"""Write what is derived from declarations; with --check, fail when that changes anything."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = re.compile(r"(<!-- from (\S+?)(?:: (\w+))? -->\n```python\n)(.*?)(```)", re.DOTALL)


def with_examples(path: Path) -> str:
    """Put the real code where a document says ``<!-- from FILE: FUNCTION -->``."""
    return EXAMPLE.sub(
        lambda found: found[1] + _code(found[2], found[3]) + found[5], path.read_text()
    )


def _code(name: str, function: str | None) -> str:
    text = (ROOT / name).read_text()
    if function is None:
        return text
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first = min(item.lineno for item in [node, *node.decorator_list])
            return "\n".join(text.splitlines()[first - 1 : node.end_lineno]) + "\n"
    raise LookupError(f"{name} has no function {function}")


def targets() -> dict[str, Callable[[], str]]:
    """Name each derived file and what writes it."""
    from narthex_exporter.actions import reference as actions  # noqa: PLC0415
    from narthex_exporter.collectors import reference as collectors  # noqa: PLC0415
    from narthex_operator import reference as operator  # noqa: PLC0415

    return {
        "CONTRIBUTING.md": lambda: with_examples(ROOT / "CONTRIBUTING.md"),
        "docs/reference/actions.md": actions.markdown,
        "docs/reference/metrics.md": collectors.markdown,
        "tests/golden/openapi.json": operator.openapi,
        "tests/golden/routes.txt": operator.routes,
    }


def main() -> int:
    """Write, or check, every derived file."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, make in targets().items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text() == text:
            continue
        if check:
            stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {name}")
    if stale:
        print(
            f"not as declared: {', '.join(stale)}\n  what to do: run script/generate",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
