"""The echo server: an object to try clients, networks and settings with, and the command that serves it.

``pyroplug echo`` serves it under the name ``test.echoserver``, with the options and output of Pyro5's.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from pyroplug.core.daemon import Daemon
from pyroplug.core.errors import PyroError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel, default_kernel
from pyroplug.core.members import expose
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.stash import StashKey
from pyroplug.core.uri import URI
from pyroplug.plugins._signals import until_signal
from pyroplug.plugins.oneway import oneway

__all__ = ["NAME_SERVER", "OBJECT_NAME", "PLUGIN", "EchoServer", "serve_echo"]

PLUGIN = PluginInfo("echoserver", "the command 'echo': a server to try things with", requires=("oneway",))

OBJECT_NAME = "test.echoserver"
"""The id of the object, and its name in a name server (Pyro's)."""

NAME_SERVER = StashKey[Callable[[Kernel, str], "AbstractContextManager[tuple[URI, str | None]]"]]()
"""How a name server is started beside the echo server; a plugin puts that into the stash of the kernel. Given a host, it
gives the URI, and where broadcasts are answered."""


def _ignore() -> None:
    pass


@expose
class EchoServer:
    """What the echo server serves.  With ``verbose`` it prints a line for each call.

    :param stop: called when a client asks for the end
    :param delay: how long the slow methods take (seconds)
    """

    def __init__(self, verbose: bool = False, stop: Callable[[], object] = _ignore, delay: float = 5.0) -> None:
        self._verbose = verbose
        self._stop = stop
        self._delay = delay
        self._ended = threading.Event()

    def echo(self, message: Any) -> Any:
        """Give the message back."""
        self._tell("echo: ", message)
        return message

    def error(self) -> None:
        """Raise ValueError (Pyro3's raised ZeroDivisionError)."""
        self._tell("error: generating exception")
        raise ValueError("this is the generated error from echoserver echo() method")

    def error_with_text(self) -> None:
        """Raise ValueError with a text of its own."""
        self._tell("error: generating exception")
        raise ValueError("the message of the error")

    @oneway
    def oneway_echo(self, message: Any) -> str:
        """As echo, but the client does not wait."""
        self._tell("oneway_echo: ", message)
        return "bogus return value"

    def slow(self) -> str:
        """Answer after some seconds."""
        self._wait("slow")
        return "Finally, an answer!"

    def generator(self) -> Iterator[str]:
        """Three items, one at a time."""
        yield "one"
        yield "two"
        yield "three"

    def nan(self) -> float:
        """Not a number."""
        return float("nan")

    def inf(self) -> float:
        """Infinity."""
        return float("inf")

    @oneway
    def oneway_slow(self) -> str:
        """As slow, but the client does not wait."""
        self._wait("oneway_slow")
        return "bogus return value"

    def shutdown(self) -> None:
        """End the server; slow methods answer at once."""
        self._tell("shutting down")
        self._ended.set()
        self._stop()

    @property
    def verbose(self) -> bool:
        """Whether calls are printed."""
        return self._verbose

    @verbose.setter
    def verbose(self, onoff: Any) -> None:
        self._verbose = bool(onoff)

    def _wait(self, name: str) -> None:
        self._tell(f"{name}: waiting a bit...")
        self._ended.wait(self._delay)
        self._tell(f"{name}: returning result")

    def _tell(self, text: str, *message: Any) -> None:
        if self._verbose:
            _say(f"{time.asctime()} - {text}" + "".join(map(_printable, message)))


def _printable(message: Any) -> str:
    try:
        return ascii(message)  # whatever the client sent, and whatever this terminal can show
    except Exception:  # a broken __repr__ of a class of the program
        return f"<{type(message).__qualname__}>"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")  # one write: calls run at the same time
    sys.stdout.flush()


def serve_echo(
    host: str = "localhost",
    port: int = 0,
    unixsocket: str | None = None,
    *,
    naming: bool = False,
    nameserver: bool = False,
    verbose: bool = False,
    quiet: bool = False,
    kernel: Kernel | None = None,
) -> None:
    """Serve an echo server until a client, SIGINT or SIGTERM ends it.

    :param naming: publish its name in the name server, as long as it runs
    :param nameserver: start a name server, too, on the same host
    :param verbose: print every call, too
    :param quiet: print nothing; ``verbose`` wins
    :raises CommunicationError: the location cannot be used
    :raises NamingError: there is no name server
    :raises PluginError: a plugin that this needs is off
    """
    kernel = kernel or default_kernel()
    say = _ignore_text if quiet and not verbose else _say
    say("Starting Pyro's built-in test echo server.")
    location: dict[str, Any] = {"unixsocket": unixsocket} if unixsocket else {"host": host, "port": port}
    with ExitStack() as stack:
        found = None
        if nameserver:
            kernel.require("naming_echo")
            found = stack.enter_context(kernel.stash[NAME_SERVER](kernel, host))
        daemon = stack.enter_context(Daemon(kernel=kernel, **location))
        echo = EchoServer(verbose, daemon.shutdown)
        uri = daemon.register(echo, OBJECT_NAME)
        if naming or nameserver:
            daemon.publish(echo, OBJECT_NAME)
        came = stack.enter_context(until_signal(daemon.shutdown))
        if verbose and found:
            say(f"name server: {found[0]}")
            say(f"broadcasts: {f'answered on {found[1]}' if found[1] else 'not answered'}")
        elif verbose and not naming:
            say("not using a name server.")
        say(f"object name: {OBJECT_NAME}")
        say(f"echo uri: {uri}")
        say("echoserver running.")
        try:
            daemon.requestLoop()
        except PyroError:
            if not came:
                raise  # a signal that comes before the loop closes the daemon at once


def _ignore_text(text: str) -> None:
    pass


@hookimpl
def pyro_commands() -> Iterable[Any]:
    """The command ``echo``."""
    import click  # only the command line needs it

    @click.command("echo")
    @click.option("-H", "--host", default="localhost", show_default=True, help="Host to listen on.")
    @click.option(
        "-p", "--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; 0 for any free one."
    )
    @click.option("-u", "--unixsocket", metavar="PATH", help="Unix socket to listen on, in place of host and port.")
    @click.option("-n", "--naming", is_flag=True, help="Publish it in the name server.")
    @click.option("-N", "--nameserver", is_flag=True, help="Start a name server, too, and publish it there.")
    @click.option("-v", "--verbose", is_flag=True, help="Print every call.")
    @click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
    @click.pass_obj
    def echo(
        session: Any,
        host: str,
        port: int,
        unixsocket: str | None,
        naming: bool,
        nameserver: bool,
        verbose: bool,
        quiet: bool,
    ) -> None:
        """Run an echo server to try clients and networks with.

        Prints the URI of its object, test.echoserver, and serves it until a client calls its method
        shutdown, or SIGINT (Ctrl-C) or SIGTERM comes; it then ends with exit code 0.
        """
        serve_echo(
            host,
            port,
            unixsocket,
            naming=naming,
            nameserver=nameserver,
            verbose=verbose,
            quiet=quiet,
            kernel=None if session is None else session.kernel,
        )

    return [echo]
