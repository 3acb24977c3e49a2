"""``narthex actor`` with a catalogue of tests' own: what jobs and timers of tests start."""

import sys

from tests.exporter.actor.jobcatalogue import CATALOGUE

from narthex_exporter.actor import jobs
from narthex_exporter.actor.commands import actor

if __name__ == "__main__":
    vars(jobs)["CATALOGUE"] = CATALOGUE
    actor(sys.argv[1:])
