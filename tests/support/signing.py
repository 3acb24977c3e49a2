"""Run a real signer in this process, with keys of its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from narthex_exporter.transport.server import Listener, Server
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.signer.app import LIMITS, SignerApp
from narthex_operator.signer.keystore import open_key_store
from narthex_operator.signer.ledger import Ledger
from narthex_operator.signer.peers import listen_for


@contextlib.contextmanager
def signing(folder: Path) -> Iterator[SignerClient]:
    """Keys and audit are in ``folder / "signer"``, the socket beside it."""
    store = open_key_store(folder / "signer")
    ledger = Ledger(folder / "signer" / "audit.jsonl")
    app = SignerApp(store=store, ledger=ledger)
    sock = listen_for(folder / "signer.sock")
    with Server(app=app, listeners=[Listener(sock=sock)], limits=LIMITS):
        yield SignerClient(socket=folder / "signer.sock")
    ledger.close()
    store.close()
