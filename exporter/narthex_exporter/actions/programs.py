"""Parameters that name a program to start, and who may be it."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import AccountFact, Facts

_ARGV_CHARACTERS: Final = 32_768
# Their members can become root: by a root daemon, a raw disk, or the hashes of passwords.
ROOT_GROUPS: Final = frozenset({"disk", "docker", "incus-admin", "kmem", "lxd", "shadow"})
# No line breaks nor terminal controls in what becomes a unit file, an audit row, a page.
LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
DEFAULT_DIRECTORY: Final = "/"

UserName = Annotated[
    str,
    Field(
        title="User",
        description="The account that it runs as.",
        examples=["www-data"],
        pattern=r"^[a-zA-Z_][a-zA-Z0-9._-]{0,31}$",
    ),
]
Argument = Annotated[str, Field(pattern=LINE, max_length=4096)]


def _absolute(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv[0].startswith("/") or argv[0].endswith("/") or "/../" in f"{argv[0]}/":
        raise ValueError("the program is named by its absolute path, such as /usr/bin/rsync")
    if sum(map(len, argv)) > _ARGV_CHARACTERS:
        raise ValueError(f"the arguments are longer than {_ARGV_CHARACTERS} characters together")
    return argv


Command = Annotated[
    tuple[Argument, ...],
    Field(
        title="Command",
        description="The program's absolute path, then its arguments, one a line. There is no"
        " shell: quotes, variables and wildcards mean nothing.",
        examples=["/usr/bin/rsync"],
        min_length=1,
        max_length=64,
    ),
    AfterValidator(_absolute),
]
Directory = Annotated[
    str,
    Field(
        title="Working directory",
        description="Where it starts.",
        examples=["/srv/app"],
        pattern=r"^/[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$",
        max_length=1024,
    ),
]
Variable = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$", max_length=4096),
]
Environment = Annotated[
    tuple[Variable, ...],
    Field(
        title="Environment",
        description="NAME=value, one a line. It stands in the audit: no place for secrets.",
        max_length=64,
    ),
]


def unprivileged(name: str, facts: Facts, *, instead: str) -> AccountFact:
    """Look up an account that cannot become root by what it is. Raises RefusedError.

    ``instead`` is the action for those that can.
    """
    found = facts.accounts.get(name)
    if found is None:
        raise RefusedError(f"there is no user {name} on this node", hint="check the name")
    if found.uid == 0:
        raise RefusedError(f"{name} is root", hint=f"{instead} is for that")
    if found.name.startswith("narthex"):
        raise RefusedError(
            f"{name} is an account of Narthex", hint="choose another account, or make one"
        )
    rooted = sorted(ROOT_GROUPS & set(found.groups))
    if rooted:
        raise RefusedError(
            f"{name} is in the group {rooted[0]}, whose members can become root",
            hint=f"choose another account; {instead} is for what needs root",
        )
    return found


def quoted(argv: tuple[str, ...]) -> str:
    """Write a command for a unit file, each argument as it is; see systemd.service(5)."""
    escaped = (
        word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
        for word in argv
    )
    return " ".join(f'"{word}"' for word in escaped)
