"""Look once at what only root may see: the work of ``narthex probe``."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from narthex_exporter.app import choose_collectors, make_node
from narthex_exporter.collectors.probes import leave, period
from narthex_exporter.collectors.spec import Collector, Node, Option
from narthex_exporter.config import Config
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.patience import Patience

log = logging.getLogger(__name__)

# A look that was made nearly a whole period ago is due: the timer does not come to the second.
_DUE: Final = 0.9


def probe(
    config: Config, settings: Mapping[Option[Any], str], *, everything: bool = False
) -> list[str]:
    """Look at each privileged collector that is on and due; name those that failed.

    Raises UnavailableError where the folder cannot be written, ConfigError for a wrong setting.
    """
    if os.geteuid() != 0:
        raise UnavailableError(
            "narthex probe looks at what only root may see", hint="run it as root"
        )
    try:
        config.probes.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"cannot write to {config.probes}: {error.strerror}") from error
    node = make_node(replace(config, settings=settings))
    due = {
        each.name: each
        for each in choose_collectors(config)
        if each.privileged and (everything or _due(each, node, config.probes))
    }
    patience: Patience[str, None] = Patience("probe")
    outcomes = patience.run(
        {name: partial(leave, each, node.fresh(), config.probes) for name, each in due.items()},
        limit=lambda name: due[name].limit_seconds,
        total_seconds=sum(each.limit_seconds for each in due.values()) + 1.0,
    )
    failed = sorted(name for name, outcome in outcomes.items() if outcome.error is not None)
    for name in failed:
        log.warning("probe.failed", extra={"collector": name, "error": str(outcomes[name].error)})
    return failed


def _due(collector: Collector, node: Node, folder: Path) -> bool:
    try:
        age = time.time() - (folder / f"{collector.name}.prom").stat().st_mtime
    except OSError:
        return True
    return not 0 <= age < _DUE * period(collector, node)
