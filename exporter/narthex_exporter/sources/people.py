"""Know the accounts of the system, wherever they are kept. See nsswitch.conf(5)."""

import grp
import os
import pwd
from dataclasses import dataclass

from narthex_exporter.contract.facts import AccountFact


@dataclass(frozen=True, slots=True)
class People:
    """The accounts that the system's own resolver knows."""

    def get(self, name: str) -> AccountFact | None:
        """Look one account up; ``None`` when there is none."""
        try:
            found = pwd.getpwnam(name)
        except (KeyError, ValueError, UnicodeError):
            return None
        return AccountFact(
            name=found.pw_name,
            uid=found.pw_uid,
            gid=found.pw_gid,
            home=found.pw_dir,
            groups=tuple(sorted(map(_group, os.getgrouplist(found.pw_name, found.pw_gid)))),
        )


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
