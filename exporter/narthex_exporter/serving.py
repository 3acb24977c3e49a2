"""Start the exporter anew in the same process, without what only its start needs.

Reading flags and files takes click, YAML and the entry points of every package: more memory than
all metrics, for the tenth of a second in which it is used. So the command, once it knows what is
wanted, hands that over to a fresh interpreter by exec(2), which keeps the process' number.
"""

import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from narthex_exporter.config import Config
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.memory import use_one_arena

if TYPE_CHECKING:
    from narthex_exporter.collectors.spec import Option

_VARIABLE: Final = "NARTHEX_START_FD"
_MODULE: Final = "narthex_exporter.serving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is handed over. ``settings`` are by collector and option, ``config`` has none."""

    config: Config
    settings: Mapping[tuple[str, str], str]
    log_level: str
    log_format: str


def relaunch(start: Start) -> None:
    """Become a fresh interpreter that serves; does not return."""
    handed = os.memfd_create("narthex-start")
    os.write(handed, pickle.dumps(start))
    os.lseek(handed, 0, os.SEEK_SET)
    os.set_inheritable(handed, True)
    os.environ[_VARIABLE] = str(handed)
    # Its flags stay, for people who look at the list of processes.
    os.execv(sys.executable, [sys.executable, "-Im", _MODULE, *sys.argv[1:]])  # noqa: S606


def main() -> int:
    """Serve as was handed over, until told to stop."""
    use_one_arena()
    handed = os.environ.pop(_VARIABLE, "")
    if not handed.isdigit():
        print(f"{_MODULE} is started by: narthex exporter", file=sys.stderr)  # noqa: T201
        return 2
    with os.fdopen(int(handed), "rb") as file:
        start: Start = pickle.load(file)  # noqa: S301 - our own words, from before exec(2)
    try:
        serve(start)
    except NarthexError as error:
        for line in error.told():
            print(line, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def serve(start: Start) -> None:
    """Build the exporter and run it. Raises NarthexError."""
    # Here, so that the command can hand over without loading it.
    from narthex_exporter import app, logfmt  # noqa: PLC0415

    logfmt.set_up(level=start.log_level, form=start.log_format, component="exporter")  # type: ignore[arg-type]  # click let no other pass
    settings = settings_of(start.settings, start.config)
    app.run(app.build(replace(start.config, settings=settings)))


def settings_of(texts: Mapping[tuple[str, str], str], config: Config) -> dict["Option[Any]", str]:
    """Find the options of the collectors that are on, by collector and option."""
    from narthex_exporter.collectors import MODULES, load  # noqa: PLC0415 - as in serve

    return {
        option: texts[collector.name, option.name]
        for collector in load(MODULES if config.modules is None else config.modules)
        for option in collector.options
        if (collector.name, option.name) in texts
    }


if __name__ == "__main__":
    sys.exit(main())
