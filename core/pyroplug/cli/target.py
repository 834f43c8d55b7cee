"""The options of commands that connect somewhere, and what becomes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pyroplug.core.client import Proxy
from pyroplug.core.errors import SerializeError, URIError
from pyroplug.core.uri import URI

from .session import Session

__all__ = ["LOCATION", "URI_OR_LOCATION", "ClientOptions", "client_options", "connected", "debug_option", "json_option"]

C = TypeVar("C", bound=Callable[..., Any])

LONGEST_SECRET = 64 * 1024
"""Characters of a handshake file; servers read no larger handshakes."""
DAEMON_OBJECT = "Pyro.Daemon"


if TYPE_CHECKING:
    _UriType = click.ParamType[URI]
else:
    _UriType = click.ParamType  # older versions of click have no type argument


class _Target(_UriType):
    """A URI, or only its location, which then means the daemon's own object."""

    def __init__(self, name: str, direct: bool) -> None:
        self.name = name
        self._direct = direct

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> URI:
        """Read the text."""
        if isinstance(value, URI):
            return value
        try:
            if str(value)[:4].upper() == "PYRO" and ":" in value and not value.partition(":")[2].isdigit():
                uri = URI(value)
            else:
                uri = URI(f"PYRO:{DAEMON_OBJECT}@{value}")
        except URIError as exc:
            self.fail(str(exc).replace(f"PYRO:{DAEMON_OBJECT}@", ""), param, ctx)
        if self._direct and uri.protocol != "PYRO":
            self.fail(f"{value!r} has to be looked up first; give host:port or ./u:path", param, ctx)
        return uri


URI_OR_LOCATION = _Target("uri", direct=False)
"""``PYRO:object@host:port``, ``PYRONAME:name``, or ``host:port`` for the daemon itself."""
LOCATION = _Target("location", direct=True)
"""``host:port``, ``./u:path``, or a URI that has one of these."""


@dataclass(frozen=True)
class ClientOptions:
    """What the options of a client command say; None where an option was not given."""

    serializer: str | None
    timeout: float | None
    handshake: Any = None

    def apply(self, proxy: Proxy) -> None:
        """Give a proxy these options."""
        if self.serializer is not None:
            try:
                proxy._pyroSerializer = self.serializer
            except SerializeError as exc:
                raise click.BadParameter(str(exc), param_hint="--serializer") from exc
        if self.timeout is not None:
            proxy._pyroTimeout = self.timeout
        if self.handshake is not None:
            proxy._pyroHandshake = self.handshake


def _read_handshake(_: click.Context, param: click.Parameter, path: str | None) -> Any:
    if path is None:
        return None
    try:
        if path == "-":
            text = sys.stdin.read(LONGEST_SECRET + 1)
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read(LONGEST_SECRET + 1)
    except OSError as exc:
        raise click.BadParameter(f"{path} cannot be read: {exc.strerror or exc}", param=param) from exc
    except ValueError:  # from None: the exception holds the text
        raise click.BadParameter(f"{path} is no text in UTF-8", param=param) from None
    if len(text) > LONGEST_SECRET:
        raise click.BadParameter(f"{path} is larger than {LONGEST_SECRET} characters", param=param)
    if path.endswith(".json"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as exc:
            where = f"line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else "not readable"
            raise click.BadParameter(f"{path} is no JSON ({where})", param=param) from None
    text = text.rstrip("\r\n")
    if not text:
        raise click.BadParameter(f"{path} is empty", param=param)
    return text


def client_options(timeout: float | None = None) -> Callable[[C], C]:
    """The options of every command that connects: --serializer, --timeout and --handshake-file."""

    def add(command: C) -> C:
        shown = f"{timeout:g}" if timeout else "COMMTIMEOUT"
        for option in (
            click.option(
                "--handshake-file",
                "handshake",
                type=click.Path(),
                metavar="FILE",
                callback=_read_handshake,
                help="What to say in the handshake (a secret): the text in this file, or its value if it is a "
                ".json file; - for the standard input.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0, min_open=True),
                default=timeout,
                metavar="SECONDS",
                help=f"How long to wait for each answer (default {shown}).",
            ),
            click.option("--serializer", metavar="NAME", help="Serializer to use (default SERIALIZER)."),
        ):
            command = option(command)
        return command

    return add


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    session = ctx.find_root().obj
    if value and isinstance(session, Session):
        session.debug = True


debug_option = click.option(
    "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_set_debug, help="Show tracebacks of errors."
)
"""--debug after the command, too."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
"""--json"""


@contextmanager
def connected(session: Session, uri: URI, options: ClientOptions) -> Iterator[Proxy]:
    """A proxy that is connected."""
    with Proxy(uri, kernel=session.kernel) as proxy:
        options.apply(proxy)
        proxy._pyroBind()
        session.connected = True
        yield proxy
