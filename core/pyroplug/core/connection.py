"""Connections as state machines, one class for each side.

::

    NEW --CONNECT--> HELLO --accepted--> OPEN --shutdown--> DRAINING --> CLOSED
     |                 |                   |                                ^
     +-----------------+--refused, late, bad bytes, end of stream-----------+

Handshake, limits, deadlines and clean-up live here and in no transport or server loop.  The server side
does no I/O: bytes go in with :meth:`ServerConnection.receive`, tasks come out with
:meth:`~ServerConnection.next_task`, and a task's ``run()`` gives the bytes to send.  The client side is
the blocking one: callers send requests and wait for replies, which :mod:`~pyroplug.core.exchange` brings to them.
"""

from __future__ import annotations

import builtins
import enum
import logging
import time
from collections.abc import Callable, Mapping
from threading import get_ident
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from .call import Call, current_call
from .dispatch import Later, Request
from .errors import (
    CommunicationError,
    ConnectionRefusedByPeer,
    OverloadError,
    ProtocolError,
    PyroError,
    RemoteError,
    RemoteProtocolError,
    SerializeError,
    TimeoutError,
)
from .exchange import FREE, Exchange, Lost, Waiter
from .stash import Stash
from .wire import (
    CONNECT,
    CONNECTFAIL,
    CONNECTOK,
    EXTENSIONS,
    FLAG_CORR_ID,
    FLAG_EXCEPTION,
    FLAG_ONEWAY,
    HEADER_SIZE,
    IN_PLACE,
    INVOKE,
    MAGIC,
    MARSHAL_ID,
    NO_CORRELATION,
    RESULT,
    Frame,
    FrameReader,
    Message,
    agreed,
    encode,
    head,
    marshalled_text,
    pack_plain,
    read_marshalled_text,
    send_all,
    told,
    unpack_plain,
)

if TYPE_CHECKING:
    from .interfaces import Buffer, Codec, Stream
    from .plan import Plan
    from .registry import Entry
    from .settings import Settings
    from .uri import URI

__all__ = [
    "MAX_WELCOMES",
    "RETRY_AFTER",
    "ClientConnection",
    "Endpoint",
    "Lost",
    "QuickTask",
    "RefusedTask",
    "ServerConnection",
    "State",
    "Task",
    "Welcome",
    "shutting_down",
]

log = logging.getLogger("pyroplug.connection")

RETRY_AFTER = 0.5
"""What an OverloadError recommends (seconds)."""
MAX_WELCOMES = 64
"""How many replies to handshakes are remembered."""
_NOT_PLAIN = 0xFFFF & ~FLAG_CORR_ID
_ITERATION_ENDS = ("StopIteration", "StopAsyncIteration", "GeneratorExit")


class State(enum.Enum):
    """Where a connection is in its life."""

    NEW = "new"
    HELLO = "hello"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Task(Protocol):
    """Something to be run for a connection.  ``quick`` ones run no code of the program."""

    @property
    def quick(self) -> bool:
        """Whether a server loop may run it at once, however much else is running."""
        ...

    def run(self) -> Message | Later | None:
        """Do it; the bytes to send, if any, or LATER when they will come to :meth:`on_answer`.  Never raises."""
        ...

    def on_answer(self, deliver: Callable[[Message | None], None]) -> None:
        """After LATER: have ``deliver`` called once, in any thread, with the bytes to send, if any."""
        ...

    def refuse(self, error: PyroError) -> Message | None:
        """Do not do it; the bytes that say so, if any.  Never raises."""
        ...


class QuickTask:
    """A task that runs no code of the program and is never answered later."""

    quick = True

    def run(self) -> Message | None:
        """As in Task."""
        return None

    def on_answer(self, deliver: Callable[[Message | None], None]) -> None:
        """Nothing: :meth:`run` has given the answer."""

    def refuse(self, error: PyroError) -> Message | None:
        """Run: to refuse costs as much."""
        return self.run()


class RefusedTask(QuickTask):
    """A task that is answered with an error and not run."""

    def __init__(self, task: Task, error: PyroError) -> None:
        self._task, self._error = task, error

    def run(self) -> Message | None:
        """The refusal."""
        return self._task.refuse(self._error)


def shutting_down() -> OverloadError:
    """What a request is told that comes too late."""
    return OverloadError("the server is shutting down; this call was not executed", RETRY_AFTER)


class Welcome(dict[str, Any]):
    """The reply to a handshake, where it is the same for many clients: it is encoded once for each serializer."""

    __slots__ = ("_encoded",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._encoded: dict[Codec, bytes] = {}

    def encoded(self, codec: Codec) -> bytes:
        """What the codec makes of it."""
        data = self._encoded.get(codec)
        if data is None:
            if len(self._encoded) >= MAX_WELCOMES:  # settings that change make new codecs
                self._encoded.clear()
            data = self._encoded[codec] = codec.dumps(dict(self))
        return data


class Endpoint(Protocol):
    """What a server connection needs to know of its daemon."""

    @property
    def objects(self) -> Mapping[str, Entry]:
        """What is registered, by object id."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings of the daemon's kernel."""
        ...

    @property
    def messages(self) -> Mapping[int, Callable[[ServerConnection, Frame], Message | None]]:
        """Handlers of further message types, after the handshake."""
        ...

    @property
    def attributes(self) -> Mapping[str, Callable[[ServerConnection], Any]]:
        """What plugins add to connections, by name; each is made when it is first asked for."""
        ...

    @property
    def base_plan(self) -> Plan:
        """What holds before the handshake."""
        ...

    def greet(self, connection: ServerConnection, hello: Mapping[str, Any]) -> Mapping[str, Any]:
        """Validate a handshake and give the reply; whatever is raised refuses the client."""
        ...

    def bind(self, connection: Any) -> Plan:
        """The plan of an accepted connection."""
        ...

    def opened(self, connection: ServerConnection) -> None:
        """The connection was accepted; never raises."""
        ...

    def closed(self, connection: ServerConnection, error: BaseException | None) -> None:
        """A connection that was opened has ended; never raises; called once for each time it was opened."""
        ...


def _nobody() -> None:
    return None


# ============================================================================= server side
class ServerConnection:
    """One client of a daemon.

    ``closing`` tells the server loop to close the stream once what was returned has been sent.
    ``stash`` is for plugins; programs may set attributes of their own.
    """

    side = "server"
    in_flight: Mapping[int, Request] = MappingProxyType({})
    """By number, the calls that are queued, run in another thread, or are to be answered later; those of connections
    whose calls may overlap only.  What is taken out of it (with ``pop``) gets no reply."""
    broken = False
    """What came is no valid message: nobody is to be waited for."""
    stash: Stash

    def __init__(self, endpoint: Endpoint, stream: Stream, *, given: bool = False) -> None:
        self.endpoint = endpoint
        self.objects = endpoint.objects
        self.settings = endpoint.settings
        self.stream = stream
        self.plan = endpoint.base_plan
        self._heads: Mapping[bytes, int] = {}
        self.extensions: frozenset[str] = frozenset()
        """The protocol extensions that both sides have."""
        self.closing = False
        self.carrier: Any = None
        """What the server loop knows this connection by."""
        self.hang_up: Callable[[], object] = stream.close
        """How to close the stream from any thread; the server loop puts its own way here."""
        self.state = State.NEW
        self.objectId = ""  # Pyro's name: the id in the CONNECT message
        self.keep_open = given  # Pyro's name: the socket is the user's
        self._opened_once = False
        limits = self.plan.limits
        self.reader = FrameReader(limits.max_handshake_size, limits.max_annotations)
        self.deadline: float | None = None
        """When the handshake must be over (``time.monotonic()`` seconds); None once it is, or without limit."""
        if limits.handshake_timeout and not given:  # whoever is at the other end of a given socket may take his time
            self.deadline = time.monotonic() + limits.handshake_timeout

    # ----------------------------------------------------------------- for server loops
    def receive(self, data: bytes) -> None:
        """Bytes have come."""
        self.reader.feed(data)

    def next_task(self) -> Task | None:
        """What is to be done next, or None when more bytes are needed."""
        if self.closing:
            return None
        try:
            frame = self.reader.next_frame()
        except ProtocolError as exc:
            return self._refuse(exc)
        if frame is None:
            return None
        if self.state is State.OPEN or self.state is State.DRAINING:
            if frame.type == INVOKE:
                request = Request(self, self.plan, frame.serializer_id, frame.flags, frame.seq, frame.payload)
                if frame.flags & FLAG_CORR_ID or frame.annotations:
                    request.take(frame)
                return request if self.state is State.OPEN else RefusedTask(request, shutting_down())
            handler = self.endpoint.messages.get(frame.type)
            if handler is not None:
                return _MessageTask(self, handler, frame)
            if frame.type == CONNECT and self.keep_open and self.state is State.OPEN:
                # a socket of the user's is never closed; another proxy goes on with it
                self._release(None)
                self._heads = {}
                self.in_flight = {}
                self.__dict__.pop("stash", None)
                self.plan = self.endpoint.base_plan
                self.state = State.HELLO
                return _Handshake(self, frame)
        elif self.state is State.NEW:
            if frame.type == CONNECT:
                self.state = State.HELLO
                return _Handshake(self, frame)
            if frame.type == INVOKE and self.keep_open:
                # Pyro's own programs skip the handshake on sockets that the user connected
                self.state = State.HELLO
                return _Handshake(self, frame, implied=True)
        return self._refuse(RemoteProtocolError(f"unexpected message type {frame.type} in state {self.state.value}"))

    def take(self, buffer: memoryview, count: int) -> Request | None:
        """The short way: the request, if ``buffer`` holds exactly one plain one and nothing else is pending.

        With None nothing has happened: :meth:`receive` the bytes.
        """
        if count < HEADER_SIZE:
            return None
        start, flags, seq, length, chunks, magic = unpack_plain(buffer)
        serializer_id = self._heads.get(start)  # empty unless the connection is open
        if (
            serializer_id is None
            or length + HEADER_SIZE != count
            or flags
            or chunks
            or magic != MAGIC
            or self.closing
            or length > self.reader.max_size
            or self.reader.data
        ):
            return None
        return Request(self, self.plan, serializer_id, 0, seq, buffer[HEADER_SIZE:count].tobytes())

    def begin(self, request: Request) -> None:
        """A call is in flight now, while others of this connection go on; by one thread at a time."""
        if not isinstance(self.in_flight, dict):
            self.in_flight = {}
        self.in_flight[request.seq] = request

    def end(self, request: Request) -> bool:
        """A call in flight has ended; whether it is to be answered.  By one thread at a time."""
        if not isinstance(self.in_flight, dict) or self.in_flight.get(request.seq) is not request:
            return False  # somebody else has answered it, or the client used its number again, or said goodbye
        return self.in_flight.pop(request.seq, None) is request

    def expired(self) -> QuickTask:
        """The handshake took too long: what to do about it."""
        return self._refuse(TimeoutError("receiving: timeout in the handshake"))

    def drain(self) -> None:
        """Refuse further requests; a client that is not through with the handshake is let go."""
        self._heads = {}
        if self.state is State.OPEN:
            self.state = State.DRAINING
        else:
            self.closing = True

    def closed(self, error: BaseException | None = None) -> None:
        """The stream has ended or is to end: close it and release everything.  Safe to call twice."""
        me = object()
        if self.__dict__.setdefault("_closed_by", me) is not me:  # (atomic; thousands of locks would be memory)
            return
        self.state = State.CLOSED
        self.closing = True
        self.stream.close()
        self._release(error)

    # ----------------------------------------------------------------- for plugins and programs
    def __getattr__(self, name: str) -> Any:
        if name == "stash":  # most idle connections need none
            return self.__dict__.setdefault("stash", Stash())
        make = self.__dict__["endpoint"].attributes.get(name)
        if make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return make(self)

    @property
    def sock(self) -> Any:
        """The socket underneath, or None."""
        return self.stream.sock

    @property
    def peer(self) -> str:
        """The client, as text."""
        return self.stream.peer

    @property
    def peer_address(self) -> Any:
        """What ``getpeername`` says, or the peer's text where there is no such thing."""
        address = getattr(self.stream, "address", None)
        if address:
            return address
        try:
            return self.stream.sock.getpeername()
        except (AttributeError, OSError):
            return self.stream.peer

    def getpeercert(self) -> Any:
        """The client's TLS certificate as a dict, or None."""
        try:
            return self.stream.sock.getpeercert()
        except (AttributeError, OSError, ValueError):
            return None

    def fileno(self) -> int:
        """The descriptor of the stream, -1 once closed."""
        return self.stream.fileno()

    def close(self) -> None:
        """Hang up on this client, from any thread."""
        self.closing = True
        self.hang_up()

    def at_end(self, function: Callable[[], object]) -> None:
        """Have a function called when the session of this client is over, also if the client was refused."""
        endings = self.__dict__.setdefault("_endings", [])
        endings.append(function)
        if self.state is State.CLOSED:  # a call that goes on longer than the connection
            self._end(endings)

    def __repr__(self) -> str:
        return f"<ServerConnection from {self.peer}, {self.state.value}>"

    # ----------------------------------------------------------------- inside
    def _refuse(self, error: PyroError) -> _Refusal:
        self.closing = self.broken = True
        in_handshake = self.state in (State.NEW, State.HELLO)
        log.warning("%s: %s%s", self.peer, "handshake refused: " if in_handshake else "", error)
        # after the handshake Pyro closes without a word: an old client would take it for a reply
        return _Refusal(str(error) if in_handshake else None)

    def _release(self, error: BaseException | None) -> None:
        """The session is over: tell everybody who was told of its beginning."""
        if self._opened_once:
            self._opened_once = False
            self.endpoint.closed(self, error)
        self._end(self.__dict__.pop("_endings", []))

    def _end(self, endings: list[Callable[[], object]]) -> None:
        while endings:
            try:
                ending = endings.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                ending()
            except Exception:  # plugin code
                log.exception("%s: %r failed", self.peer, ending)

    def _opened(self) -> None:
        self.plan = self.endpoint.bind(self)
        self.reader.max_size = self.plan.limits.max_message_size
        self.reader.max_segments = self.plan.segments
        self.deadline = None
        self._heads = self.plan.heads
        self.state = State.OPEN
        self._opened_once = True
        self.endpoint.opened(self)


class _Refusal(QuickTask):
    """The last word to a client whose serializer is not known (yet): text in marshal format."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def run(self) -> Message | None:
        if self._text is None:
            return None
        return encode(CONNECTFAIL, MARSHAL_ID, 0, 0, marshalled_text(self._text))


class _MessageTask(QuickTask):
    """A message of a type that a plugin handles."""

    def __init__(
        self,
        connection: ServerConnection,
        handler: Callable[[ServerConnection, Frame], Message | None],
        frame: Frame,
    ) -> None:
        self._connection, self._handler, self._frame = connection, handler, frame

    def run(self) -> Message | None:
        try:
            return self._handler(self._connection, self._frame)
        except Exception:  # plugin code
            log.exception("%s: handling a message of type %d failed", self._connection.peer, self._frame.type)
            self._connection.closing = True
            return None


class _Handshake:
    """CONNECT, or the first request of a peer that says no hello (``implied``)."""

    quick = False  # validators are code of the program

    def __init__(self, connection: ServerConnection, frame: Frame, implied: bool = False) -> None:
        self._connection, self._frame, self._implied = connection, frame, implied
        self._request: Request | None = None

    def run(self) -> Message | Later | None:
        connection, frame = self._connection, self._frame
        codec = connection.plan.codecs.get(frame.serializer_id)
        if codec is None:
            accepted = ", ".join(sorted(connection.plan.names.values()))
            return connection._refuse(
                SerializeError(
                    f"message used serializer that is not accepted: {frame.serializer_id} (accepted are: {accepted})"
                )
            ).run()
        # validators may want to know what a method can know of its call
        call = Call(connection, connection.plan, frame.serializer_id, frame.flags, frame.seq, None)
        call.take(frame)
        token = current_call.set(call)
        try:
            hello = self._hello(codec)
            connection.objectId = hello["object"]
            connection.extensions = agreed(connection.plan.extensions, frame.annotations.get(EXTENSIONS, b""))
            if connection.extensions:
                call.annotate(EXTENSIONS, told(connection.extensions))
            reply = connection.endpoint.greet(connection, hello)
            payload = reply.encoded(codec) if type(reply) is Welcome else codec.dumps(reply)
            connection._opened()
        except BaseException as exc:  # validators are user code; whatever they raise refuses the client
            connection.closing = True
            log.warning("%s: handshake refused: %r", connection.peer, exc)  # the text may be the peer's
            text = str(exc) or type(exc).__name__
            return encode(CONNECTFAIL, frame.serializer_id, 0, frame.seq, codec.dumps(text))
        finally:
            current_call.reset(token)
        if self._implied:
            request = Request(connection, connection.plan, frame.serializer_id, frame.flags, frame.seq, frame.payload)
            request.take(frame)
            self._request = request
            return request.run()
        flags = frame.flags & FLAG_CORR_ID
        annotations = call.reply_annotations
        return encode(CONNECTOK, frame.serializer_id, flags, frame.seq, payload, annotations, frame.correlation)

    def on_answer(self, deliver: Callable[[Message | None], None]) -> None:
        if self._request is not None:
            self._request.on_answer(deliver)

    def refuse(self, error: PyroError) -> Message | None:
        return self._connection._refuse(error).run()

    def _hello(self, codec: Any) -> Mapping[str, Any]:
        connection, frame = self._connection, self._frame
        payload = frame.payload
        for bit, inflate in connection.plan.inflaters.items():
            if frame.flags & bit:
                payload = inflate(payload, connection.plan.limits.max_handshake_size)
        if self._implied:
            # such a peer has proven nothing: the validators see what a client says that was told nothing
            return {"handshake": "hello", "object": codec.loads_call(payload)[0]}
        hello = codec.loads(payload)
        if not isinstance(hello, dict) or "handshake" not in hello or not isinstance(hello.get("object"), str):
            raise RemoteProtocolError("invalid handshake: expected a dict with 'handshake' and 'object'")
        return hello


# ============================================================================= client side
class ClientConnection(Exchange):
    """One connection to a daemon.

    With peers that agreed to it any number of threads make calls on it at the same time (``overlapping``); otherwise
    its owner sees to it that one does.
    """

    side = "client"
    blocking = True
    """Whether a call stops the thread that makes it."""
    uri: URI | None = None
    """Where it leads; what had to be resolved is."""
    objectId = ""  # as on the server's side; a name that was resolved is the id of an object only now
    correlation = NO_CORRELATION
    """What the handshake carries as its correlation id; plugins may set it in ``pyro_hello``."""
    owner: Callable[[], Any] = staticmethod(_nobody)
    """A weak reference to the proxy, for plugins that make further calls."""
    extensions: frozenset[str] = frozenset()
    """The protocol extensions that both sides have."""

    def __init__(
        self, stream: Stream, plan: Plan, serializer_id: int, settings: Settings, *, owns_stream: bool = True
    ) -> None:
        super().__init__(stream, plan.limits)
        self.settings = settings
        self.serializer_id = serializer_id
        self.stash = Stash()
        self.owns_stream = owns_stream
        self.use(plan)

    def use(self, plan: Plan) -> None:
        """Use this plan from now on."""
        self.plan = plan
        self.codec = plan.codecs[self.serializer_id]
        self._plain = plan.plain and not plan.payload
        # looked up once, read by every call
        self._probes = plan.probes
        self._arguments = plan.arguments
        self._dumps_call = plan.requests.get(self.serializer_id) or self.codec.dumps_call
        self.reader.max_segments = plan.segments
        self._loads = self.codec.loads
        self._head = head(INVOKE, self.serializer_id)
        self._reply_head = head(RESULT, self.serializer_id)
        self._max_size = plan.limits.max_message_size
        self._pulse = plan.pulse
        self._small = 0 if plan.pulse else min(IN_PLACE, self._max_size)  # (the short way only waits, whoever is gone)
        # another proxy may use a given socket next, and must not find replies to the calls of this one there
        self.overlapping = plan.overlapping > 0 and self.owns_stream
        self._limit = plan.overlapping if self.overlapping else 1
        self._on_given_up = plan.given_up
        self._part_type = plan.parts if self.overlapping else 0

    # ----------------------------------------------------------------- the handshake
    def hello(self, hello: Mapping[str, Any], annotations: Mapping[str, bytes], seq: int) -> Mapping[str, Any]:
        """Send CONNECT and wait for the answer.

        :raises ConnectionRefusedByPeer: the server said no, and why
        """
        self.seq = seq
        payload = self.codec.dumps(hello)
        offered = self.plan.extensions
        if offered:
            annotations = {**annotations, EXTENSIONS: told(offered)}
        flags = 0 if self.correlation is NO_CORRELATION else FLAG_CORR_ID
        try:
            self._send(encode(CONNECT, self.serializer_id, flags, seq, payload, annotations, self.correlation))
            frame = self.first_frame()
        except Lost as lost:
            raise lost.error from lost.error.__cause__
        if frame.type == CONNECTFAIL:
            reason = self._reason(frame)
            raise ConnectionRefusedByPeer(f"connection to {self.peer} rejected: {reason}", reason)
        if frame.type != CONNECTOK:
            raise RemoteProtocolError(f"{self.peer} answered the handshake with message type {frame.type}")
        if frame.serializer_id != self.serializer_id:
            raise SerializeError(f"invalid serializer in handshake response of {self.peer}: {frame.serializer_id}")
        welcome = self.codec.loads(self._inflated(frame))
        if not isinstance(welcome, dict) or "handshake" not in welcome:
            raise RemoteProtocolError(f"{self.peer} sent an invalid handshake response")
        self.extensions = agreed(offered, frame.annotations.get(EXTENSIONS, b""))
        return welcome

    def _reason(self, frame: Frame) -> str:
        if frame.serializer_id == self.serializer_id:
            return str(self.codec.loads(self._inflated(frame)))
        if frame.serializer_id == MARSHAL_ID:
            return read_marshalled_text(frame.payload)
        raise SerializeError(f"invalid serializer in handshake response of {self.peer}: {frame.serializer_id}")

    # ----------------------------------------------------------------- calls
    def call(self, object_id: str, method: str, args: Any, kwargs: Any, flags: int = 0, raw: bool = False) -> Any:
        """Make a call and wait for its result.

        :raises Lost: it failed on the way; where ``gone`` is true now, the owner needs another connection
        :raises BaseException: what the server answered, or why nothing was sent
        """
        if not self._plain or raw or (len(args) == 1 and type(args[0]) in self._arguments):
            return self._call_with_plugins(object_id, method, args, kwargs, flags, raw)
        for probe in self._probes:
            if probe() is not None:
                return self._call_with_plugins(object_id, method, args, kwargs, flags, raw)
        try:
            payload = self._dumps_call(object_id, method, args, kwargs)
        except SerializeError:
            if not self.plan.unsendable:
                raise
            return self._call_with_plugins(object_id, method, args, kwargs, flags, raw)
        size = len(payload)
        if flags or size >= self._small or self._short != FREE or not self._turn.acquire(False):
            return self._exchange(payload, flags, self.serializer_id, method)

        # from here on the short way of one small plain call while no other is under way, in one piece: no frame, no
        # call object, no waiter
        try:
            if self._sending.acquire(False):
                if self._waiters or self._sends or self._short != FREE:
                    self._sending.release()
                else:
                    self._reader = get_ident()
                    self._short = self.seq = seq = (self.seq + 1) & 0xFFFF
                    message = pack_plain(self._head, seq, size, MAGIC) + payload
                    stream = self.stream
                    sent = stream.send(message)
                    if sent < len(message):
                        send_all(stream.send, (memoryview(message)[sent:],))
                    self._sending.release()
                    count = stream.recv_into(self._buffer)
                    if count > HEADER_SIZE:
                        start, flags, reply_seq, length, chunks, magic = unpack_plain(self._buffer)
                        if (
                            start == self._reply_head
                            and reply_seq == seq
                            and length + HEADER_SIZE == count
                            and length <= self._small
                            and not (chunks or flags & _NOT_PLAIN)
                            and magic == MAGIC
                        ):
                            data = self._view[HEADER_SIZE:count].tobytes()
                            self._short = FREE
                            self._turn.release()
                            if self._waiters:
                                self._heard += 1
                                self._tell_another()
                            return self._loads(data)
                    return self._finish(count, seq, method)
        except BaseException as exc:
            self._undo(exc)
            raise
        self._turn.release()
        if self._waiters:
            self._tell_another()
        return self._exchange(payload, 0, self.serializer_id, method)

    def _finish(self, count: int, seq: int, method: str) -> Any:
        """Anything but one plain reply came: take the long way from what is in the buffer."""
        if not count:
            raise self._ended()
        waiter = self._waiters[seq] = Waiter(RESULT)
        waiter.number = seq
        self._heard += 1
        self.reader.feed(bytes(self._view[:count]))
        expires = None if self.timeout is None else time.monotonic() + self.timeout
        frame = self._wait(waiter, expires, self._heard, reads=True)
        call = self._took(frame, None, method) if frame.annotations else None
        if frame.serializer_id != self.serializer_id:
            self._foreign_serializer(frame)
        return self._value(frame, call, method)

    def _undo(self, exc: BaseException) -> None:
        """The short way was left by an exception: see that nothing stays locked.

        :raises Lost: the call was lost by it
        """
        number = self._short if self._reader == get_ident() else FREE
        sending = True
        try:
            self._sending.release()
        except RuntimeError:
            sending = False
        if number < 0:
            self._let_go()  # it was over, or had not begun
            return
        failed = isinstance(exc, (OSError, CommunicationError))
        error = exc if isinstance(exc, CommunicationError) else self._translated(exc, sending)
        waiter = self._waiters[number] = Waiter(RESULT)
        waiter.number = number
        if sending or (failed and not isinstance(exc, builtins.TimeoutError)):
            self._break(error)
            self._let_go()
        else:
            self._give_up(waiter, exc, self._heard)
        if failed:
            raise Lost(error) from None

    def _call_with_plugins(self, object_id: str, method: str, args: Any, kwargs: Any, flags: int, raw: bool) -> Any:
        call = Call(self, self.plan, self.serializer_id, flags, 0, None)
        call.object_id, call.method, call.args, call.kwargs = object_id, method, args, kwargs
        return self.send_call(call, raw)

    def send_call(self, call: Call, raw: bool = False) -> Any:
        """Make a call that plugins have something to do with; ``raw`` returns the reply's frame, not its value."""
        self.prepare(call)
        return self._exchange(call.payload, call.flags, call.serializer_id, call.method, call, raw)

    def prepare(self, call: Call) -> None:
        """Have the plugins do what they have to do with a call, and encode it."""
        plan = self.plan
        for step in plan.before_send:
            step(call)
        if plan.arguments and len(call.args) == 1 and type(call.args[0]) in plan.arguments:
            plan.arguments[type(call.args[0])](call)
        if call.payload is None:
            dumps_call = plan.requests.get(call.serializer_id) or plan.codecs[call.serializer_id].dumps_call
            try:
                call.payload = dumps_call(call.object_id, call.method, call.args, call.kwargs)
            except SerializeError:
                if not _replaced(call):
                    raise
                call.payload = dumps_call(call.object_id, call.method, call.args, call.kwargs)
        for payload_filter in plan.payload:
            changed = payload_filter.encode(call.payload)
            if changed is not None:
                call.payload = changed
                call.flags |= payload_filter.flag
        if call.correlation is not NO_CORRELATION:
            call.flags |= FLAG_CORR_ID

    def _exchange(
        self,
        payload: Buffer,
        flags: int,
        serializer_id: int,
        method: str,
        call: Call | None = None,
        raw: bool = False,
    ) -> Any:
        """Send an encoded request; receive and decode the reply, unless the flags say that none comes."""
        annotations: Mapping[str, Buffer] | None = None
        correlation = NO_CORRELATION
        expires: float | None = None
        waiter: Waiter | None = None
        if call is not None:
            annotations, correlation = call.annotations, call.correlation
            expires, waiter = call.expires, call.waiter
        if flags & FLAG_ONEWAY:
            self.post(INVOKE, serializer_id, flags, payload, annotations, correlation)
            return None
        frame = self.ask(
            INVOKE,
            serializer_id,
            flags,
            payload,
            annotations,
            correlation,
            answer=RESULT,
            expires=expires,
            waiter=waiter,
        )
        return self.complete(frame, serializer_id, method, call, raw)

    def complete(self, frame: Frame, serializer_id: int, method: str, call: Call | None, raw: bool = False) -> Any:
        """What an answer means to the caller: its value, or the exception that it carries."""
        if call is not None or frame.annotations:
            call = self._took(frame, call, method)
        if raw:
            return frame
        if frame.serializer_id != serializer_id:
            self._foreign_serializer(frame)
        return self._value(frame, call, method)

    def _took(self, frame: Frame, call: Call | None, method: str) -> Call:
        """Show a reply to the plugins that want to see it."""
        if call is None:
            call = Call(self, self.plan, frame.serializer_id, 0, frame.seq, None)
            call.method = method
        call.reply_annotations = dict(frame.annotations)
        call.reply_correlation = frame.corr_id
        for step in self.plan.after_reply:
            step(call)
        return call

    def value(self, frame: Frame, method: str = "") -> Any:
        """What a reply carries, for plugins that asked for its frame; raises the exception that it may be."""
        if frame.serializer_id != self.serializer_id:
            self._foreign_serializer(frame)
        return self._value(frame, None, method)

    def inflated(self, frame: Frame) -> Buffer:
        """The payload of a message without what payload filters did to it, for plugins that asked for the frame."""
        return self._inflated(frame)

    def released(self) -> None:
        """It is to be closed on purpose: the plugins' last chance to send something."""
        if self.plan.before_release and not self.gone:
            try:
                for step in self.plan.before_release:
                    step(self)
            except (CommunicationError, Lost) as exc:
                log.debug("%s: nothing more could be sent: %s", self.peer, exc)

    def _value(self, frame: Frame, call: Call | None, method: str) -> Any:
        plan = self.plan
        flags = frame.flags & ~FLAG_CORR_ID
        codec = plan.codecs[frame.serializer_id]
        if not flags:
            return codec.loads(frame.payload)
        value = codec.loads(self._inflated(frame))
        for bit, handler in plan.reply_flags.items():
            if flags & bit:
                call = call or self._took(frame, None, method)
                call.reply_flags = flags
                return handler(call, value)
        if flags & FLAG_EXCEPTION:
            try:
                self._raise(value, method)
            finally:
                value = None  # the exception, whose traceback has this frame: a circle would keep the proxy alive
        return value

    def _raise(self, value: Any, method: str) -> NoReturn:
        if isinstance(value, dict):
            value = self.plan.from_dict(value)
        if not isinstance(value, Exception):
            value = RemoteError(type(value).__qualname__, (value,))
        if type(value).__name__ in _ITERATION_ENDS and not method.endswith("next__"):
            # would silently end a loop or generator of the caller that has nothing to do with it (PEP 479)
            end, value = value, RuntimeError(f"remote method {method} raised {type(value).__name__}")
            value._pyroTraceback = getattr(end, "_pyroTraceback", None)
            value.__cause__ = end
        try:
            raise value
        finally:
            del value  # no reference cycle through this frame

    def _foreign_serializer(self, frame: Frame) -> NoReturn:
        codec = self.plan.codecs.get(frame.serializer_id)
        if frame.flags & FLAG_EXCEPTION and codec is not None:
            self._raise(codec.loads(self._inflated(frame)), "")  # the server refused our serializer, and says so
        raise SerializeError(f"invalid serializer in response: {frame.serializer_id}")

    def _inflated(self, frame: Frame) -> Buffer:
        payload = frame.payload
        for bit, inflate in self.plan.inflaters.items():
            if frame.flags & bit:
                payload = inflate(payload, self.plan.limits.max_message_size)
        return payload


def _replaced(call: Call) -> bool:
    """Put what plugins give in place of arguments that do not travel; whether there was any."""
    found = False

    def replaced(place: int | str, value: Any) -> Any:
        nonlocal found
        for kind, replace in call.plan.unsendable:
            if isinstance(value, kind):
                found = True
                return replace(call, place, value)
        return value

    call.args = [replaced(place, value) for place, value in enumerate(call.args)]
    call.kwargs = {name: replaced(name, value) for name, value in call.kwargs.items()}
    return found
