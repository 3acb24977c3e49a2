"""One operator for all tests of a module: they ask, and change little."""

from collections.abc import Iterator

import pytest

from narthex_exporter.transport.server import Listener, Server
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.signer.app import SignerApp
from narthex_operator.signer.keystore import open_key_store
from narthex_operator.signer.ledger import Ledger
from narthex_operator.signer.peers import listen_for
from realoperator import Operator, make_config, run_operator


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    store = open_key_store(folder / "signer")
    ledger = Ledger(folder / "signer" / "audit.jsonl")
    app = SignerApp(store=store, ledger=ledger)
    socket = folder / "signer.sock"
    with (
        Server(app=app, listeners=[Listener(sock=listen_for(socket))]),
        run_operator(make_config(folder, SignerClient(socket=socket).socket)) as one,
    ):
        yield one
    ledger.close()
    store.close()
