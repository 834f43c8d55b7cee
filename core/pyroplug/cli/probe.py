"""``probe``: what is listening at a place, told from its first bytes.

The client speaks first: newer servers wait for it (a passive look, as with netcat, would hang).  It says a
CONNECT of protocol 502, which every generation answers with a header of its own version.  Two more facts
follow from how a 502 server takes serializer ids it does not know: pyroplug says which it accepts, Pyro5
hangs up.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pyroplug.core.errors import CommunicationError, ProtocolError, PyroError
from pyroplug.core.uri import URI
from pyroplug.core.wire import (
    CONNECT,
    CONNECTFAIL,
    CONNECTOK,
    MARSHAL_ID,
    PROTOCOL_VERSION,
    Frame,
    FrameReader,
    encode,
    read_marshalled_text,
    send_all,
    sniff_version,
)

from .failures import Exit
from .output import milliseconds, print_json, print_text
from .session import Session
from .target import LOCATION, debug_option, json_option

if TYPE_CHECKING:
    from pyroplug.core.interfaces import Stream
    from pyroplug.core.kernel import Kernel

__all__ = ["Finding", "generation", "look", "probe"]

LARGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read at most."""

_JSON_ID = 3
_NOBODYS_ID = 254
"""A serializer id that no serializer has."""

_HELLOS: Mapping[str, tuple[int, bytes]] = {
    # a CONNECT to the daemon's own object; written down, since a probe needs no serializer to be loaded
    "serpent": (1, b"# serpent utf-8 python3.2\n{'handshake':'hello','object':'Pyro.Daemon'}"),
    "marshal": (2, b"{\xda\x09handshake\xda\x05hello\xda\x06object\xda\x0bPyro.Daemon0"),
    "json": (3, b'{"handshake": "hello", "object": "Pyro.Daemon"}'),
    "msgpack": (4, b"\x82\xa9handshake\xa5hello\xa6object\xabPyro.Daemon"),
}

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"HTTP/", "a web server"),
    (b"SSH-", "an SSH server"),
    (b"\x15\x03", "a TLS server (it may be a Pyro server that wants TLS)"),
    (b"220 ", "a mail or FTP server"),
    (b"-ERR", "a Redis or POP3 server"),
)


@dataclass
class Finding:
    """What a probe has found; times are in seconds, None is what could not be found out."""

    location: str
    kind: str = "unknown"
    """``pyroplug``, ``Pyro5``, ``Pyro4``, ``Pyro3``, ``Pyro``, or ``unknown`` when it is no Pyro server."""
    version: int | None = None
    """The wire version."""
    connect_time: float = 0.0
    answer_time: float | None = None
    accepted: bool | None = None
    """Whether a plain handshake was accepted."""
    reason: str = ""
    """Why not, in the server's words; or what was seen instead of an answer."""
    serializers: tuple[str, ...] | None = None
    methods: tuple[str, ...] = field(default=())
    """The methods of the daemon's own object, if the server told them."""

    @property
    def is_pyro(self) -> bool:
        """Whether it speaks Pyro, of whatever generation."""
        return self.version is not None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "location": self.location,
            "kind": self.kind,
            "pyro": self.is_pyro,
            "version": self.version,
            "compatible": self.version == PROTOCOL_VERSION,
            "connect_ms": self.connect_time * 1000,
            "answer_ms": None if self.answer_time is None else self.answer_time * 1000,
            "accepted": self.accepted,
            "reason": self.reason,
            "serializers": None if self.serializers is None else list(self.serializers),
            "methods": list(self.methods),
        }


def generation(version: int) -> str:
    """Which Pyro has this wire version."""
    if version <= 5:
        return "Pyro3"
    if 30 <= version < 100:
        return "Pyro4"
    return "Pyro5" if 500 <= version < 600 else "Pyro"


@dataclass
class _Answer:
    data: bytes = b""
    frame: Frame | None = None
    version: int | None = None
    connect_time: float = 0.0
    answer_time: float | None = None
    ended: str = ""
    """Why nothing more came: "closed", "timeout" or the text of an error."""


def _ask(kernel: Kernel, uri: URI, timeout: float, serializer_id: int, payload: bytes) -> _Answer:
    """Send a CONNECT over a connection of its own and read what comes, for ``timeout`` seconds at most.

    :raises CommunicationError: no connection
    """
    transport = kernel.transports.get(uri.scheme)
    if transport is None:
        known = ", ".join(sorted(f"./{scheme}:" if scheme else "host:port" for scheme in kernel.transports))
        raise CommunicationError(f"no transport is loaded for {uri.location!r} (there are: {known})")
    start = time.monotonic()
    # without the layers of plugins: the bytes are to be seen as they are
    stream = transport.connect(uri, timeout, kernel.settings)
    answer = _Answer(connect_time=time.monotonic() - start)
    try:
        _exchange(stream, start + timeout, encode(CONNECT, serializer_id, 0, 0, payload), answer)
    except TimeoutError:
        answer.ended = "timeout"
    except OSError as exc:
        answer.ended = exc.strerror or str(exc)
    finally:
        stream.close()
    return answer


def _exchange(stream: Stream, deadline: float, message: Any, answer: _Answer) -> None:
    started = time.monotonic()
    stream.settimeout(max(deadline - started, 0.001))
    try:
        send_all(stream.send, message)
    except (BrokenPipeError, ConnectionResetError):
        pass  # a server that speaks first and hangs up: what it said may still be there
    reader = FrameReader(LARGEST_ANSWER)
    buffer = bytearray(4096)
    fed = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        stream.settimeout(left)
        count = stream.recv_into(buffer)
        if not count:
            answer.ended = "closed"
            return
        if answer.answer_time is None:
            answer.answer_time = time.monotonic() - started
        answer.data += buffer[:count]
        if len(answer.data) < 6:
            continue
        answer.version = sniff_version(answer.data)
        if answer.version != PROTOCOL_VERSION:
            return
        try:
            reader.feed(answer.data[fed:])
            fed = len(answer.data)
            answer.frame = reader.next_frame()
        except ProtocolError as exc:
            answer.ended = str(exc)
            return
        if answer.frame is not None:
            return


def look(kernel: Kernel, uri: URI, timeout: float, *, details: bool = True) -> Finding:
    """What is listening at the location of a URI; takes ``timeout`` seconds at most for each connection made.

    :param details: make further connections to tell pyroplug from Pyro5, and which serializers are accepted
    :raises CommunicationError: nothing is listening there
    """
    answer = _ask(kernel, uri, timeout, _JSON_ID, _HELLOS["json"][1])
    found = Finding(uri.location, version=answer.version)
    found.connect_time, found.answer_time = answer.connect_time, answer.answer_time
    if answer.version is None:
        found.reason = _not_pyro(answer, timeout)
        return found
    found.kind = generation(answer.version)
    if answer.version != PROTOCOL_VERSION:
        found.reason = f"speaks protocol {answer.version}, not {PROTOCOL_VERSION}"
        return found
    _read_answer(answer, found)
    if details:
        _find_serializers(kernel, uri, timeout, found)
    return found


def _not_pyro(answer: _Answer, timeout: float) -> str:
    for start, name in _OTHERS:
        if answer.data.startswith(start):
            return f"not a Pyro server: it looks like {name}"
    if answer.data:
        return f"not a Pyro server: it answered {answer.data[:24]!r}"
    if answer.ended == "timeout":
        return f"no answer within {timeout:g} seconds: not a Pyro server, or one that hangs"
    return "the connection was closed without an answer: not a Pyro server, or one that wants TLS"


def _read_answer(answer: _Answer, found: Finding) -> None:
    frame = answer.frame
    if frame is None:
        found.reason = f"an incomplete answer ({answer.ended})"
    elif frame.type == CONNECTOK:
        found.accepted = True
        try:
            found.methods = tuple(sorted(map(str, json.loads(bytes(frame.payload))["meta"]["methods"])))
        except (ValueError, LookupError, TypeError, RecursionError):
            pass  # not told, or in a form that we do not need
    elif frame.type == CONNECTFAIL:
        found.accepted = False
        found.reason = _reason(frame)
    else:
        found.reason = f"it answered the handshake with message type {frame.type}"


def _reason(frame: Frame) -> str:
    try:
        if frame.serializer_id == MARSHAL_ID:
            return read_marshalled_text(frame.payload)
        return str(json.loads(bytes(frame.payload)))
    except (ValueError, RecursionError, PyroError):
        return "refused, in words that cannot be read"


def _find_serializers(kernel: Kernel, uri: URI, timeout: float, found: Finding) -> None:
    try:
        answer = _ask(kernel, uri, timeout, _NOBODYS_ID, b"")
        if answer.frame is not None and answer.frame.type == CONNECTFAIL:
            match = re.search(r"\(accepted are: ([^)]*)\)?", _reason(answer.frame))
            if match:
                found.kind = "pyroplug"
                found.serializers = tuple(sorted(part.strip() for part in match[1].split(",") if part.strip()))
            return
        accepted = []
        for name, (wire_id, hello) in _HELLOS.items():
            frame = _ask(kernel, uri, timeout, wire_id, hello).frame
            # a refusal in the same serializer comes from behind the serializer
            if frame is not None and frame.serializer_id == wire_id and frame.type in (CONNECTOK, CONNECTFAIL):
                accepted.append(name)
        found.serializers = tuple(sorted(accepted))
    except CommunicationError:
        pass  # it was there a moment ago; what is known stays


@click.command(short_help="Find out what is listening at a place.")
@click.argument("location", type=LOCATION, metavar="HOST:PORT")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each connection and its answer.",
)
@click.option("--version-only", is_flag=True, help="Make one connection only: no serializers, Pyro5 like pyroplug.")
@json_option
@debug_option
@click.pass_obj
def probe(session: Session, location: URI, timeout: float, version_only: bool, as_json: bool) -> None:
    """Find out what is listening at HOST:PORT, [IPV6]:PORT or ./u:PATH.

    Shows the wire version, which Pyro it is, how long it takes to answer, whether it lets us in, and the
    serializers that it accepts. The exit code is 0 for a Pyro server of any generation, 3 when nothing
    listens, 4 when it is something else.
    """
    found = look(session.kernel, location, timeout, details=not version_only)
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found)
    if not found.is_pyro:
        click.get_current_context().exit(Exit.PEER)


def _print(found: Finding) -> None:
    if not found.is_pyro:
        print_text(f"pyroplug: server: {found.location}: {found.reason}", err=True, fg="red")
        return
    print_text(f"location: {found.location}")
    print_text(f"kind: {found.kind}")
    print_text(f"version: {found.version}")
    print_text(f"connect: {milliseconds(found.connect_time)}")
    if found.answer_time is not None:
        print_text(f"answer: {milliseconds(found.answer_time)}")
    if found.accepted is not None:
        print_text("handshake: accepted" if found.accepted else f"handshake: refused: {found.reason}")
    elif found.reason:
        print_text(f"note: {found.reason}")
    if found.serializers is not None:
        print_text(f"serializers: {', '.join(found.serializers) or 'none that we know'}")
