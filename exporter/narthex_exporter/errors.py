"""The errors that people meet.

::

    NarthexError              something failed; the message says what, to what, and what to do next
    ├── ConfigError           a file or flag is wrong
    ├── RefusedError          a plan or policy says no (contract.spec)
    └── UnavailableError      a thing we need is not there or does not answer
"""

from narthex_exporter.contract.errors import NarthexError, RefusedError

__all__ = ["ConfigError", "NarthexError", "RefusedError", "UnavailableError"]


class ConfigError(NarthexError):
    """A configuration file or flag is wrong."""


class UnavailableError(NarthexError):
    """A program, socket or file that is needed is not there, or does not answer."""
