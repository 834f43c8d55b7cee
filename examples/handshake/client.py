"""Show a password when connecting: ``client.py PYRO:...``."""

import os
import sys
from typing import Any

from pyroplug.api import ConnectionRefusedByPeer, Proxy


class PoliteProxy(Proxy):
    def _pyroValidateHandshake(self, response: Any) -> None:
        # what the server's validator returned; raise here to hang up on a server that is not the right one
        print("the server says:", response)


with PoliteProxy(sys.argv[1]) as vault:
    vault._pyroHandshake = {"user": "mallory", "password": "guess"}
    try:
        vault.content()
    except ConnectionRefusedByPeer as error:
        print("refused:", error.reason)

    # the value is never part of a proxy that is sent somewhere else
    vault._pyroHandshake = {"user": "alibaba", "password": os.environ.get("EXAMPLE_PASSWORD", "open sesame")}
    print("content:", vault.content())
    vault.stop()
