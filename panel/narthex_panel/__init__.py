"""The control panel: server-rendered pages on top of the operator's services."""

from narthex_panel.blueprint import build
from narthex_panel.errors import render_error

__all__ = ["build", "render_error"]
