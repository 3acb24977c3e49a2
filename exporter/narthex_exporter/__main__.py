"""Run the ``narthex`` command: ``python -Im narthex_exporter …``."""

from narthex_exporter.cli import program

program()
