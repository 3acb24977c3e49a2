"""Expose a node's metrics and logs, and run the declared actions that an operator asks for."""

__version__ = "0.1.0"
