"""The errors that both sides of the wire know."""


class NarthexError(Exception):
    """Something failed. ``str()`` says what and to what; ``hint`` says what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def told(self) -> list[str]:
        """Give the lines that a person at a terminal is shown."""
        hint = [f"  what to do: {self.hint}"] if self.hint else []
        return [f"narthex: {self}", *hint]


class RefusedError(NarthexError):
    """A plan or a policy refuses to act; nothing was changed."""


class TicketError(NarthexError):
    """A ticket is missing, forged, stale or for something else.

    ``reason`` is one short word for audits and metrics; callers outside learn no more than it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
