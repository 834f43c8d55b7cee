"""Where is the name server?  What is tried, what the answer to nobody and to several of them is."""

import socket
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from pyroplug.api import Kernel, NamingError, locate_ns, start_ns


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def main(folder: Path) -> None:
    port = unused_port()
    settings = {"NS_PORT": port, "NS_TIMEOUT": 2.0}  # nobody is there, and that is to be known within two seconds
    try:
        locate_ns(kernel=Kernel(settings=settings))
    except NamingError as error:
        print("nobody:", error)

    with ExitStack() as stack:
        # a name server that writes down where it is; programs that can read the file need nothing else
        place = str(folder / "uri")
        uri, daemon, _ = start_ns("localhost", 0, kernel=Kernel(settings={"NS_URIFILE": place}))
        loop = threading.Thread(target=daemon.requestLoop)
        loop.start()
        stack.callback(loop.join)
        stack.callback(daemon.shutdown)
        with locate_ns(kernel=Kernel(settings={**settings, "NS_URIFILE": place})) as ns:
            print("by its file:", ns._pyroUri == uri)
        with locate_ns("localhost", uri.port) as ns:
            print("by its place:", ns._pyroUri == uri)
        with locate_ns(kernel=Kernel(settings={"NS_PORT": uri.port})) as ns:
            print("by the settings:", ns._pyroUri == uri)
    daemon.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
