"""Finding the name server by asking the whole network segment, with Pyro's datagrams.

Anybody on the segment may answer such a question, so by default nobody is asked.  NS_BROADCAST=1 asks, as Pyro does.
With a key (NS_BCKEY, NS_BCKEY_FILE) that name server and clients share, clients ask with a datagram of their own, and
only answers that somebody signed who has the key are used.  Signed or not, an answer says no more than where the name
server is; what is said to it afterwards is protected by other means.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from pyroplug.core.errors import CommunicationError, URIError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel, default_kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.uri import URI

from .secret import shared_secret
from .table import NAMESERVER_NAME, Responder, Search, naming_of

__all__ = ["PLUGIN", "Broadcast", "BroadcastServer"]

PLUGIN = PluginInfo("naming_broadcast", "finds and announces name servers by UDP broadcast", requires=("naming",))

log = logging.getLogger("pyroplug.naming")

QUESTION = b"GET_NSURI"
SIGNED_QUESTION = b"GET_NSURI_SIGNED "
"""Followed by a nonce.  Pyro's responders pass over it."""
SIGNED_ANSWER = b"NSURI_SIGNED "
"""Followed by signature, blank, and URI."""
READ = 100
"""Bytes that Pyro reads of an answer."""
ROUNDS, PATIENCE = 3, 0.7
"""How often the network is asked, and the seconds that each time an answer is waited for."""
GATHERING = 0.25
"""Seconds after the first answer in which others are waited for, so that a second name server does not go unnoticed."""
EVERYWHERE = ("0.0.0.0", "::")


# --------------------------------------------------------------------------- signatures
def _signature(key: bytes, nonce: bytes, uri: bytes) -> bytes:
    import hashlib
    import hmac

    return hmac.new(key, b"pyroplug name server\0" + nonce + b"\0" + uri, hashlib.sha256).hexdigest().encode()


def _same(one: bytes, other: bytes) -> bool:
    import hmac

    return hmac.compare_digest(one, other)  # takes as long for every wrong one


# --------------------------------------------------------------------------- asking
class Broadcast:
    """Asks the addresses of BROADCAST_ADDRS."""

    name = "broadcast"
    order = 20

    def locate(self, search: Search) -> Sequence[URI]:
        """All that answered, the quickest first."""
        settings = search.kernel.settings
        key = shared_secret(settings, "NS_BCKEY")
        wanted = search.broadcast
        if wanted is None:
            wanted = settings.NS_BROADCAST if settings.NS_BROADCAST is not None else key is not None
            if not wanted:
                raise CommunicationError("not asked (NS_BROADCAST=1 asks everybody on the network)")
        if not wanted:
            return ()
        if getattr(settings, "PREFER_IP_VERSION", 0) == 6:
            raise CommunicationError("not asked: IPv6 has no broadcasts (PREFER_IP_VERSION)")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            asker = _Asker(sock, search, key, search.port or settings.NS_BCPORT)
            for _ in range(ROUNDS):
                if time.monotonic() >= search.deadline:
                    break
                asker.ask()
                found = asker.listen(first=settings.NS_DISCOVERY == "first")
                if found:
                    return found
            raise CommunicationError(asker.failure())


class _Asker:
    """One question to everybody, and the answers."""

    def __init__(self, sock: socket.socket, search: Search, key: bytes | None, port: int) -> None:
        self._sock = sock
        self._search = search
        self._key = key
        self._nonce = os.urandom(16).hex().encode()
        self._addresses = [(address, port) for address in search.kernel.settings.BROADCAST_ADDRS]
        self._unsent: dict[str, str] = {}
        self._refused: dict[str, str] = {}

    def ask(self) -> None:
        """Send the question everywhere."""
        self._unsent.clear()
        for address in self._addresses:
            try:
                self._sock.sendto(SIGNED_QUESTION + self._nonce if self._key else QUESTION, address)
            except OSError as exc:
                self._unsent[address[0]] = exc.strerror or str(exc)
        if len(self._unsent) == len(self._addresses):
            raise CommunicationError(self.failure())

    def listen(self, *, first: bool) -> list[URI]:
        """The answers that come now."""
        found: list[URI] = []
        end = min(time.monotonic() + PATIENCE, self._search.deadline)
        while (left := end - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                data, sender = self._sock.recvfrom(1024)
            except TimeoutError:
                break
            except OSError:
                continue  # Windows: "nobody listens there", said by one of those that were asked
            uri = self._answer(data, sender[0])
            if uri is None or uri in found:
                continue
            found.append(uri)
            if first:
                break
            if len(found) == 1:
                end = min(end, time.monotonic() + GATHERING)
        return found

    def _answer(self, data: bytes, sender: str) -> URI | None:
        text = data if self._key is None else self._verified(data, sender)
        if text is None:
            return None
        try:
            uri = URI(text.decode("iso-8859-1"))
        except URIError as exc:
            self._refuse(sender, f"its answer is no uri: {exc}")
            return None
        if uri.protocol != "PYRO":
            self._refuse(sender, f"it answered with {uri}, which is nowhere to connect to")
            return None
        log.debug("%s answered: %s", sender, uri)
        return uri

    def _verified(self, data: bytes, sender: str) -> bytes | None:
        assert self._key is not None
        signature, _, text = data.removeprefix(SIGNED_ANSWER).partition(b" ")
        if not data.startswith(SIGNED_ANSWER):
            self._refuse(sender, "its answer is not signed")
        elif not _same(signature, _signature(self._key, self._nonce, text)):
            self._refuse(sender, "its answer is signed with another key")
        else:
            return text
        return None

    def _refuse(self, sender: str, why: str) -> None:
        if self._refused.get(sender) != why and len(self._refused) < 20:
            log.warning("answer from %s ignored: %s", sender, why)
            self._refused[sender] = why

    def failure(self) -> str:
        """What became of the question."""
        asked = [address for address, _ in self._addresses if address not in self._unsent]
        port = self._addresses[0][1] if self._addresses else 0
        parts = [f"no answer from {', '.join(asked)} (UDP port {port})"] if asked else ["nobody was asked"]
        parts += [f"{address} could not be asked: {why}" for address, why in self._unsent.items()]
        parts += [f"{sender} was not listened to: {why}" for sender, why in self._refused.items()]
        return ", ".join(parts)


# --------------------------------------------------------------------------- answering
class BroadcastServer:
    """Tells whoever asks the network where the name server is.

    Run it with :meth:`runInThread`, or let an event loop watch it (``fileno``) and call :meth:`processRequest`, or
    give it to the ``combine`` of a daemon.

    :param nsUri: the URI to tell; with the host ``0.0.0.0`` each asker is told the interface that reaches it
    :param bchost: where to listen (default: NS_BCHOST; empty for every interface)
    :param bcport: the port (default: NS_BCPORT), 0 for any free one
    :param ipv6: listen with IPv6 (there are no broadcasts, but datagrams to just one address)
    :raises OSError: the address cannot be had
    """

    def __init__(
        self,
        nsUri: URI | str,
        bchost: Any = None,
        bcport: int | None = None,
        ipv6: bool = False,
        *,
        kernel: Kernel | None = None,
    ) -> None:
        kernel = kernel or default_kernel()
        kernel.require("naming_broadcast")
        settings = kernel.settings
        self.nsUri = URI(nsUri)
        self._key = shared_secret(settings, "NS_BCKEY")
        self._thread: threading.Thread | None = None
        if len(str(self.nsUri).encode("iso-8859-1")) > READ:
            log.warning("the uri %s is too long for broadcasts: Pyro reads %d bytes of it", self.nsUri, READ)
        host = str(settings.NS_BCHOST or "" if bchost is None else bchost)
        port = settings.NS_BCPORT if bcport is None else bcport
        six = ipv6 or ":" in host or ":" in (self.nsUri.host or "")
        self.sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if os.name == "posix" and sys.platform != "cygwin":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, getattr(settings, "SOCK_REUSE", True))
            self.sock.settimeout(2.0)
            self.sock.bind((host, port))
        except OSError as exc:
            self.sock.close()
            what = f"cannot listen for broadcasts on {host or 'every interface'} UDP port {port}"
            raise OSError(exc.errno, f"{what}: {exc.strerror or exc}") from exc
        shown = self.sock.getsockname()[0]
        self.locationStr = f"[{shown}]:{self.getPort()}" if six else f"{shown}:{self.getPort()}"
        self.running = True

    def getPort(self) -> int:
        """The port."""
        return int(self.sock.getsockname()[1])

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self.sock.fileno()

    # ----------------------------------------------------------------- for Daemon.combine
    @property
    def sockets(self) -> list[Any]:
        """What a loop must watch."""
        return [self]

    def events(self, ready: Sequence[Any]) -> None:
        """Something has come."""
        self.processRequest()

    # ----------------------------------------------------------------- working
    def runInThread(self) -> threading.Thread:
        """Answer in a thread until this is closed; the thread."""
        self._thread = threading.Thread(target=self._run, name="pyroplug-broadcast", daemon=True)
        self._thread.start()
        return self._thread

    def _run(self) -> None:
        while self.running:
            self.processRequest()

    def processRequest(self) -> None:
        """Answer one question; waits 2 seconds for it at most."""
        try:
            data, asker = self.sock.recvfrom(READ)
            if not self.running:
                return
            if data == QUESTION:
                self.sock.sendto(self._uri_for(asker), asker)
            elif self._key is not None and data.startswith(SIGNED_QUESTION):
                text = self._uri_for(asker)
                nonce = data.removeprefix(SIGNED_QUESTION)
                self.sock.sendto(SIGNED_ANSWER + _signature(self._key, nonce, text) + b" " + text, asker)
        except OSError:
            pass  # nobody asked, the asker is gone, or this was closed

    def _uri_for(self, asker: tuple[Any, ...]) -> bytes:
        uri = self.nsUri
        if uri.host in EVERYWHERE:
            uri = URI.build(uri.protocol, uri.object, None, _interface_towards(asker[0]) or uri.host, uri.port)
        log.debug("%s asks for the name server: %s", asker[0], uri)
        return str(uri).encode("iso-8859-1")

    def close(self) -> None:
        """Stop answering."""
        self.running = False
        thread, self._thread = self._thread, None
        if thread not in (None, threading.current_thread()):
            assert thread is not None
            host, port = self.sock.getsockname()[:2]
            try:  # wake it; not every system does so when the socket is shut down
                self.sock.sendto(b"", ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port))
            except OSError:
                pass  # it wakes up by itself, a little later
            thread.join()
        self.sock.close()

    def __enter__(self) -> BroadcastServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _interface_towards(host: str) -> str | None:
    """Our address on the way to a host; nothing is sent."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, 9))
        except OSError:
            return None
        return str(sock.getsockname()[0])


def _responder(daemon: Any, bchost: Any, bcport: int | None) -> Responder | None:
    """One for a name server that others can reach over IPv4."""
    sock = daemon.sock
    if sock is None or sock.family != socket.AF_INET:
        return None
    bound, port = sock.getsockname()[:2]
    if bound.startswith("127."):
        return None
    uri = daemon.uriFor(NAMESERVER_NAME, nat=False)  # whoever hears broadcasts is on this side of a NAT router
    if bound in EVERYWHERE:
        uri = URI.build("PYRO", NAMESERVER_NAME, None, bound, port)
    return BroadcastServer(uri, bchost, bcport, kernel=daemon.kernel)


# --------------------------------------------------------------------------- hooks
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """Whether and where to ask and to answer, and the key."""
    for setting in (
        Setting("NS_BROADCAST", bool, None, "look for name servers by broadcast; not set: only with a key",
                PLUGIN.name, optional=True),
        Setting("NS_BCHOST", str, None, "where name servers listen for broadcasts; not set: every interface",
                PLUGIN.name, optional=True),
        Setting("NS_BCPORT", int, 9091, "UDP port of broadcasts", PLUGIN.name, minimum=0, maximum=65535),
        Setting("BROADCAST_ADDRS", list, ["<broadcast>", "0.0.0.0"], "where broadcasts are sent to", PLUGIN.name),
        Setting("NS_BCKEY", str, None, "key that answers to broadcasts must be signed with", PLUGIN.name,
                optional=True, secret=True),
        Setting("NS_BCKEY_FILE", str, None, "file that holds this key", PLUGIN.name, optional=True),
    ):  # fmt: skip
        schema.add(setting)


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """A way to find name servers, and what answers."""
    shared_secret(kernel.settings, "NS_BCKEY")  # to be told now what is wrong with it
    naming = naming_of(kernel)
    naming.locators.append(Broadcast())
    naming.responder = _responder
