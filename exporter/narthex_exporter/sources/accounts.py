"""Read which accounts the machine itself has, and which of them are as good as root."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths

# Who is in one of these can become root: by sudo, or through what runs as root for them.
ROOT_GROUPS: Final = frozenset(
    {
        *("root", "sudo", "wheel", "admin", "disk"),
        *("docker", "lxd", "incus-admin", "libvirt"),
    }
)
_NO_SHELLS: Final = ("/nologin", "/false", "/sync", "/shutdown", "/halt")
_PASSWD_FIELDS, _GROUP_FIELDS = 7, 4
_MOST_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """How many accounts may have a shell, how many may not, how many are as good as root."""

    login: int
    nologin: int
    root_equivalent: int


def parse_accounts(passwd: str, group: str) -> Accounts:
    """Parse passwd(5) and group(5); lines of too few fields are skipped."""
    login = nologin = 0
    powerful: set[str] = set()
    gids: set[str] = set()
    for name, _, gid, members in _fields(group, _GROUP_FIELDS):
        if name in ROOT_GROUPS:
            gids.add(gid)
            powerful.update(filter(None, members.split(",")))
    for name, _, uid, gid, _, _, shell in _fields(passwd, _PASSWD_FIELDS):
        if shell.endswith(_NO_SHELLS):
            nologin += 1
        else:
            login += 1
        # The primary group of a system's own account is a name, and no power that it uses.
        if uid == "0" or (gid in gids and not shell.endswith(_NO_SHELLS)):
            powerful.add(name)
    return Accounts(login=login, nologin=nologin, root_equivalent=len(powerful))


def count_without_password(shadow: str) -> int:
    """Count those of shadow(5) whose password is empty, so that none is asked for."""
    return sum(
        len(words) > 1 and not words[1]
        for words in (line.split(":") for line in shadow.splitlines() if line)
        if words[0]
    )


def _fields(text: str, count: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        words = line.split(":")
        # + and - begin NIS's lines, which name no account.
        if len(words) == count and line[:1] not in {"", "#", "+", "-"}:
            yield words


@dataclass(slots=True)
class AccountFiles:
    """passwd, group and shadow, each parsed again only when it changed."""

    folder: Path = Path("/etc")
    _accounts: Kept[Accounts] = field(default_factory=Kept, init=False)
    _empty: Kept[int] = field(default_factory=Kept, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own files."""
        return cls(paths.rooted("/etc"))

    def accounts(self) -> Accounts:
        """Count the accounts. Raises FileNotFoundError."""
        passwd, group = self.folder / "passwd", self.folder / "group"
        return self._accounts.get(
            stamp((passwd, group)), lambda: parse_accounts(_text(passwd), _text(group))
        )

    def without_password(self) -> int:
        """Count who needs no password. Raises FileNotFoundError, PermissionError."""
        shadow = self.folder / "shadow"
        return self._empty.get(stamp((shadow,)), lambda: count_without_password(_text(shadow)))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")
