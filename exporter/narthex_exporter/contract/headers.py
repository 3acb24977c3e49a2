"""The names that HTTP messages between operator and node carry; light, for who only passes on."""

from typing import Final

TICKET_HEADER: Final = "Narthex-Ticket"
NONCE_HEADER: Final = "Replay-Nonce"
INSTANCE_HEADER: Final = "Narthex-Instance"
PROBLEM_TYPE: Final = "application/problem+json"
