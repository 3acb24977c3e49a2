"""Serve the panel over fakes on a loopback port, to look at it: python tests/panel/serve.py."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.panel.fakes import World, services
from tests.panel.webapp import make_app

from narthex_operator.services.access import Role


def main() -> None:
    """Read the options and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=19190)
    parser.add_argument("--mode", default="full", choices=("full", "quiet", "empty", "failing"))
    parser.add_argument("--role", default=Role.ADMIN, choices=list(Role))
    parser.add_argument("--text", default="", help="what nodes say wherever they say anything")
    parser.add_argument("--language", default="", choices=("", "en", "ru"))
    options = parser.parse_args()
    world = World(mode=options.mode, role=Role(options.role), text=options.text)
    world.language = options.language
    make_app(services(world)).run("127.0.0.1", options.port, threaded=True)


if __name__ == "__main__":
    main()
