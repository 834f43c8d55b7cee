"""Let only those in who know the password.

A password in clear text is for trusted networks only: anybody who can read the traffic can read it too.
"""

import hmac
import os
from typing import Any

from pyroplug.api import Daemon, expose

# secrets come from the environment or a file, never from the command line, which everybody can read
PASSWORD = os.environ.get("EXAMPLE_PASSWORD", "open sesame")


class GuardedDaemon(Daemon):
    def validateHandshake(self, conn: Any, data: Any) -> Any:
        # whatever is raised here refuses the client, and its text is all the client learns
        if not isinstance(data, dict) or not hmac.compare_digest(str(data.get("password")), PASSWORD):
            raise PermissionError("wrong password")
        conn.user = data["user"]  # kept with the connection, for the methods to look at
        return f"welcome, {conn.user}"

    def clientDisconnect(self, conn: Any) -> None:
        print("disconnected:", getattr(conn, "user", "somebody who was not let in"), flush=True)


@expose
class Vault:
    def content(self) -> str:
        return "gold"

    def stop(self) -> None:
        daemon.shutdown()


with GuardedDaemon() as daemon:
    print(daemon.register(Vault()), flush=True)
    daemon.requestLoop()
