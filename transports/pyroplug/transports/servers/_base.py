"""What the server loops share: polling, accepting, moving bytes, deadlines, and closing.

One thread at a time *turns* the loop: it polls, accepts, receives and (usually) runs the calls in place.
A link belongs to whoever set its ``busy``; nobody else touches it until that is cleared.
"""

from __future__ import annotations

import contextlib
import logging
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeGuard

from pyroplug.core.call import current_call
from pyroplug.core.connection import ServerConnection, State, Task
from pyroplug.core.dispatch import Request
from pyroplug.core.errors import CommunicationError
from pyroplug.core.interfaces import Acceptor, Listener, Stream
from pyroplug.core.plan import Pulse
from pyroplug.core.settings import Settings
from pyroplug.core.wire import (
    CONNECTFAIL,
    FLAG_ONEWAY,
    MARSHAL_ID,
    Message,
    encode,
    in_parts,
    marshalled_text,
    message_size,
)

__all__ = ["BaseLoop", "Link", "Poller", "Source"]

log = logging.getLogger("pyroplug.server")

LAST_MOMENT = 0.1
"""Seconds for what must still be done when the time for shutting down is over."""
RECEIVE_SIZE = 256 * 1024
"""Bytes received at once, into a buffer that one turning thread uses for all connections."""
SWEEP_INTERVAL = 1.0
"""Seconds between looks at deadlines other than those of handshakes."""
POLLED_AT_ONCE = 64
"""How many ready clients one poll tells of; the others come first in the next."""
READ, WRITE = 1, 4  # the values of EPOLLIN and EPOLLOUT, so that nothing has to be translated


class Source:
    """Something that is polled: a listener, a client, or a foreign object."""

    __slots__ = ("fd", "interest")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.interest = 0


class ListenerSource(Source):
    """A listener and the daemon that its clients belong to."""

    __slots__ = ("acceptor", "failures", "listener")

    def __init__(self, listener: Listener, acceptor: Acceptor) -> None:
        super().__init__(listener.fileno())
        self.listener = listener
        self.acceptor = acceptor
        self.failures = 0


class ForeignSource(Source):
    """A socket of something else that wants to be served in our loop."""

    __slots__ = ("events", "sock")

    def __init__(self, sock: Any, events: Callable[[Iterable[Any]], Any]) -> None:
        super().__init__(sock if isinstance(sock, int) else sock.fileno())
        self.sock = sock
        self.events = events


class Link(Source):
    """One client: its stream, its connection, and what could not be sent yet."""

    __slots__ = (
        "active",
        "busy",
        "connection",
        "idle_since",
        "later",
        "loop",
        "out",
        "parked",
        "shared",
        "silent",
        "stream",
    )

    def __init__(self, stream: Stream, connection: ServerConnection, loop: BaseLoop) -> None:
        super().__init__(stream.fileno())
        self.loop = loop
        self.stream = stream
        self.connection = connection
        self.out: deque[memoryview] | None = None
        self.busy = False
        self.later = False  # what makes it busy runs in no thread of ours
        self.parked = False
        self.shared: Shared | None = None
        self.active = True
        self.idle_since = 0.0
        self.silent = (
            0  # sweeps since something was received; counted only where the client is to show that it is there
        )

    def __call__(self) -> None:
        """Hang up on the client, soon and unless a call is running; from any thread.

        The link is itself what its connection calls for that: thousands of bound methods would be memory.
        """
        self.loop._ask(lambda: self.loop._close_if_idle(self))


class Shared:
    """What a link has while calls of it are in flight that the turning thread does not wait for.

    Only the owner of the link (who may receive) makes it and takes it away; the rest is done with the lock held.
    """

    __slots__ = ("elsewhere", "held", "interest", "large", "lock", "open", "waiting")

    def __init__(self) -> None:
        self.lock = threading.Lock()  # for all that is sent, and for closing
        self.open = 0  # calls in flight
        self.elsewhere = 0  # those of them that have or need a thread
        self.large: deque[Iterator[tuple[bytes, memoryview]]] = deque()  # replies that go in parts, in turn
        self.waiting = 0  # bytes of them
        self.held = False  # not read, because too much is in flight
        self.interest = READ


def overlaps(task: Task) -> TypeGuard[Request]:
    """Whether other calls of the same client may be made before this one is answered.

    Not before a oneway call has been run: its client goes on at once, and nobody else knows what came first.
    """
    return type(task) is Request and bool(task.plan.overlapping) and not task.flags & FLAG_ONEWAY


def _name(call: Any) -> str:
    # shown so that what a peer sent cannot pass for something else
    return repr(f"{call.object_id}.{call.method}")


class _Poll(Protocol):
    def __call__(self, seconds: float, at_most: int = ..., /) -> list[tuple[int, int]]: ...


class EpollPoller:
    """Linux: the system's poller, used without a layer between (half the cost of ``selectors``).

    Descriptors are closed behind its back (a method may close the stream of its client), and are then given to others:
    a source has its descriptor until it is forgotten or another one is added with it.  All methods but :meth:`poll` may
    be called from any thread.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self.poll: _Poll = self._epoll.poll
        """``poll(seconds, at_most)``: what is ready, waiting up to so long: descriptors, each with READ, WRITE or other
        bits.  Other bits are errors and hang-ups, and count as READ: receiving then tells what it is."""
        self.sources: dict[int, Source] = {}
        """Who has which descriptor."""

    def add(self, source: Source, interest: int) -> None:
        """Poll a source that is new here for READ, WRITE, or both; whoever had its descriptor has lost it."""
        with self._lock:
            self.sources[source.fd] = source
            source.interest = 0
            self._apply(source, interest)

    def set(self, source: Source, interest: int) -> None:
        """Poll the source for READ, WRITE, both, or (0) not at all; nothing, if it has its descriptor no more."""
        with self._lock:
            if self.sources.get(source.fd) is source:
                self._apply(source, interest)

    def forget(self, source: Source) -> None:
        """Poll the source no more."""
        with self._lock:
            if self.sources.get(source.fd) is source:
                self._apply(source, 0)
                del self.sources[source.fd]

    def _apply(self, source: Source, interest: int) -> None:
        mask = (select.EPOLLIN if interest & READ else 0) | (select.EPOLLOUT if interest & WRITE else 0)
        # an error here means that the descriptor was closed meanwhile: the kernel has forgotten it already
        with contextlib.suppress(OSError, ValueError):
            if not interest:
                if source.interest:
                    self._epoll.unregister(source.fd)
            elif source.interest:
                self._epoll.modify(source.fd, mask)
            else:
                self._epoll.register(source.fd, mask)
        source.interest = interest

    def fileno(self) -> int:
        """A descriptor that is readable when :meth:`poll` has something to tell."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Release the descriptor."""
        self._epoll.close()


class SelectorPoller:
    """Everywhere else: what :mod:`selectors` finds, made safe for changes from other threads.

    As EpollPoller; while another thread polls, changes take effect when that is woken or returns.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self.sources: dict[int, Source] = {}
        self._changes: deque[tuple[Callable[[Source, int], None], Source, int]] = deque()
        self._turning = False
        self.wake: Callable[[], None] = lambda: None
        """How to end a poll that another thread is in."""

    def add(self, source: Source, interest: int) -> None:
        """As in EpollPoller."""
        self._change(self._add, source, interest)

    def set(self, source: Source, interest: int) -> None:
        """As in EpollPoller."""
        self._change(self._set, source, interest)

    def forget(self, source: Source) -> None:
        """As in EpollPoller."""
        self._change(self._forget, source, 0)

    def _change(self, change: Callable[[Source, int], None], source: Source, interest: int) -> None:
        with self._lock:
            if self._turning:
                self._changes.append((change, source, interest))
                self.wake()
            else:
                change(source, interest)

    def _add(self, source: Source, interest: int) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            self._selector.unregister(source.fd)  # of whoever was closed behind our back
        self.sources[source.fd] = source
        source.interest = 0
        self._set(source, interest)

    def _forget(self, source: Source, interest: int) -> None:
        if self.sources.get(source.fd) is source:
            self._set(source, interest)
            del self.sources[source.fd]

    def _set(self, source: Source, interest: int) -> None:
        if self.sources.get(source.fd) is not source:
            return
        mask = (selectors.EVENT_READ if interest & READ else 0) | (selectors.EVENT_WRITE if interest & WRITE else 0)
        with contextlib.suppress(OSError, ValueError, KeyError):
            if not interest:
                if source.interest:
                    self._selector.unregister(source.fd)
            elif source.interest:
                self._selector.modify(source.fd, mask, source)
            else:
                self._selector.register(source.fd, mask, source)
        source.interest = interest

    def poll(self, timeout: float, at_most: int = POLLED_AT_ONCE) -> list[tuple[int, int]]:
        """As in EpollPoller."""
        with self._lock:
            self._turning = True
        try:
            ready = self._selector.select(timeout)
        finally:
            with self._lock:
                self._turning = False
                while self._changes:
                    change, source, interest = self._changes.popleft()
                    change(source, interest)
        return [
            (key.fd, (READ if mask & selectors.EVENT_READ else 0) | (WRITE if mask & selectors.EVENT_WRITE else 0))
            for key, mask in ready
        ]

    def fileno(self) -> int:
        """As in EpollPoller, where the system's poller has a descriptor; otherwise AttributeError."""
        selector: Any = self._selector
        return int(selector.fileno())

    def close(self) -> None:
        """Release the descriptor."""
        self._selector.close()


Poller = EpollPoller if hasattr(select, "epoll") else SelectorPoller


class _Waker(Source):
    """Ends a poll from another thread or a signal handler."""

    __slots__ = ("_write", "sock")

    def __init__(self) -> None:
        self.sock, self._write = socket.socketpair()
        self.sock.setblocking(False)
        self._write.setblocking(False)
        super().__init__(self.sock.fileno())

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody is there to wake
            self._write.send(b"!")

    def drain(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.recv(4096)

    def close(self) -> None:
        self.sock.close()
        self._write.close()


class BaseLoop:
    """A loop that one thread at a time can turn; subclasses say who, and where calls run."""

    def __init__(self, acceptor: Acceptor, settings: Settings) -> None:
        self._acceptor = acceptor
        self._settings = settings
        self._poller = Poller()
        self._waker = _Waker()
        self._poller.add(self._waker, READ)
        self._view = memoryview(bytearray(RECEIVE_SIZE))
        self._links: dict[int, Link] = {}
        self._greeting: deque[Link] = deque()  # in the order of their handshake deadlines
        self._listeners: list[ListenerSource] = []
        self._paused: list[ListenerSource] = []
        self._requests: deque[Callable[[], None]] = deque()  # to be done by the turning thread
        self._lock = threading.RLock()
        self._stop = False
        self.abandoned: list[str] = []
        """The calls that were not over when the loop was closed."""
        self._deadline = 0.0  # when calls are abandoned, once the loop is to stop
        self._closed = self._poller_closed = False
        self._next_sweep = 0.0
        self._next_housekeeping = 0.0
        self._turning_thread: int | None = None
        self._others: list[BaseLoop] = []
        self._host: BaseLoop | None = None  # who serves us, since we were combined with it
        self._epoch = 0  # changes when another thread takes over the turning
        if isinstance(self._poller, SelectorPoller):
            self._poller.wake = self._waker.wake

    # ----------------------------------------------------------------- what is served
    def add_listener(self, listener: Listener) -> None:
        """Accept clients from it."""
        self._adopt_listener(ListenerSource(listener, self._acceptor))

    def _adopt_listener(self, source: ListenerSource) -> None:
        self._listeners.append(source)
        self._poller.add(source, READ)

    def add_stream(self, stream: Stream) -> None:
        """Serve a stream that is connected already."""
        self._admit(stream, self._acceptor, given=True)

    @property
    def sockets(self) -> list[Any]:
        """What a foreign event loop must watch for reading."""
        sockets: list[Any] = [source.listener.sock or source.listener for source in self._listeners]
        sockets += [
            link.stream.sock or link.stream
            for link in list(self._links.values())
            if not link.busy and (link.shared is None or not link.shared.held)
        ]
        sockets.append(self._waker.sock)
        return sockets

    def combine(self, other: Any) -> None:
        """Serve the sockets of another loop, or of anything with ``sockets`` and ``events``, in this one."""
        if isinstance(other, BaseLoop):
            if type(other) is not type(self):
                raise TypeError("combine works for daemons with the same server loop only")
            for source in other._listeners:
                other._poller.forget(source)
                self._adopt_listener(source)
            for link in list(other._links.values()):
                other._poller.forget(link)
                self._links[link.fd] = link
                self._poller.add(link, READ)
            other._listeners = []
            self._others.append(other)
            other._host = self
        else:
            for sock in other.sockets:
                self._poller.add(ForeignSource(sock, other.events), READ)
        self._waker.wake()

    # ----------------------------------------------------------------- turning
    def _turn(self, timeout: float) -> None:
        """One round: poll, handle what is ready, look after deadlines.

        Where ``_epoch`` changes, another thread has taken over: it polls now, and finds the rest.
        """
        epoch = self._epoch
        sources = self._poller.sources
        for fd, mask in self._poller.poll(self._shorter(timeout) if self._greeting else timeout, POLLED_AT_ONCE):
            source = sources.get(fd)
            if type(source) is Link:
                try:
                    if mask == READ and not source.busy:
                        self._receive(source)
                    else:
                        self._ready(source, mask)
                except Exception as exc:  # a mistake of ours must not cost the other clients
                    log.exception("%s: unexpected error, closing", source.connection.peer)
                    self._close(source, exc)
            elif source is not None:
                self._ready_other(source)
            if self._epoch != epoch:
                return
        now = time.monotonic()
        if now >= self._next_sweep or self._greeting:
            self._sweep(now)

    def _ready_other(self, source: Source) -> None:
        if isinstance(source, _Waker):
            source.drain()
            epoch = self._epoch
            while self._requests and self._epoch == epoch:
                self._requests.popleft()()
            if self._requests:
                self._waker.wake()  # the lead was lost in one of them: the rest is for whoever has it now
        elif isinstance(source, ListenerSource):
            self._accept(source)
        elif isinstance(source, ForeignSource):
            try:
                source.events([source.sock])
            except Exception:  # code of the program
                log.exception("the combined %r failed", source.sock)

    def _shorter(self, timeout: float) -> float:
        deadline = self._greeting[0].connection.deadline
        if deadline is None:
            return 0.0  # the sweep removes it
        return min(timeout, max(0.0, deadline - time.monotonic()))

    def _ask(self, request: Callable[[], None]) -> None:
        """Have something done by the turning thread."""
        self._requests.append(request)
        self._waker.wake()

    # ----------------------------------------------------------------- clients come
    def _accept(self, source: ListenerSource) -> None:
        # one at a time: those already there get their turn, and asking until nobody is left costs a system call
        try:
            stream = source.listener.accept()
        except OSError as exc:
            if not self._closed:
                log.warning("cannot accept connections any more: %s", exc)
            self._poller.set(source, 0)
            return
        if stream is not None:
            source.failures = 0
            self._admit(stream, source.acceptor)
            return
        source.failures += 1
        if source.failures >= 10:
            # ready, but nothing to accept (out of descriptors): do not spin, look again later
            source.failures = 0
            self._poller.set(source, 0)
            self._paused.append(source)

    def _admit(self, stream: Stream, acceptor: Acceptor, *, given: bool = False) -> None:
        try:
            stream.settimeout(0)
            if self._closed:
                self._turn_away(stream, "the server is shutting down")
                return
            if len(self._links) >= self._settings.MAX_CONNECTIONS:
                self._turn_away(stream, f"too many connections (MAX_CONNECTIONS={self._settings.MAX_CONNECTIONS})")
                return
            connection = acceptor.connection(stream, given=given)
            if connection.stream is not stream:
                stream = connection.stream
                stream.settimeout(0)
        except Exception as exc:  # layers are plugin code
            log.warning("a connection could not be set up: %s: %s", type(exc).__name__, exc)
            stream.close()
            return
        connection.carrier = connection.hang_up = link = Link(stream, connection, self)
        with self._lock:
            before = self._links.get(link.fd)
            self._links[link.fd] = link
        if before is not None and not before.busy:  # (otherwise whoever works for it will notice)
            self._close(before, CommunicationError("its stream was closed by the server"))
        if connection.deadline is not None:
            self._greeting.append(link)
        self._poller.add(link, READ)

    def _turn_away(self, stream: Stream, reason: str) -> None:
        log.warning("%s: turned away: %s", stream.peer, reason)
        message = encode(CONNECTFAIL, MARSHAL_ID, 0, 0, marshalled_text(reason))
        with contextlib.suppress(OSError):
            stream.send(message if isinstance(message, bytes) else message[0])
        stream.close()

    # ----------------------------------------------------------------- bytes come
    def _ready(self, link: Link, mask: int) -> None:
        if link.shared is not None:
            self._ready_shared(link, link.shared, mask)
        elif link.busy:
            self._park(link)
        elif mask & WRITE:
            self._flush(link)
        else:
            self._receive(link)

    def _park(self, link: Link) -> None:
        """Stop polling a link whose call is still running; whoever runs it puts it back."""
        with self._lock:
            if link.busy and not link.parked:
                link.parked = True
                shared = link.shared
                if shared is None:
                    self._poller.set(link, 0)
                else:
                    with shared.lock:
                        self._watch(link, shared)

    def _receive(self, link: Link) -> None:
        connection = link.connection
        stream = link.stream
        link.active = True
        link.silent = 0
        try:
            reader = connection.reader
            target = reader.writable() if reader.data else None
            if target is None:
                count = stream.recv_into(self._view)
                if count and not stream.pending():
                    task = connection.take(self._view, count)
                    if task is not None:
                        self._work_on(link, task)
                        return
                connection.receive(self._view[:count].tobytes())
            else:
                count = stream.recv_into(target)
                reader.wrote(count)
            while count and stream.pending():
                count = stream.recv_into(self._view)
                connection.receive(self._view[:count].tobytes())
        except BlockingIOError:
            return
        except OSError as exc:
            self._close(link, exc)
            return
        if count:
            self._work(link)
        else:
            self._close(link, None)

    def _next_task(self, link: Link) -> Task | None:
        """What a link is to do next; None when there is nothing, or nothing now."""
        connection = link.connection
        shared = link.shared
        if shared is not None:
            if not self._admits(link, shared):
                return None
        elif link.out is not None:
            return None
        task = connection.next_task()
        if task is None and connection.closing:
            self._deliver(link, None)  # closes it, unless a reply is still to come
        return task

    def _work_on(self, link: Link, task: Task) -> None:
        """Run a task behind which nothing else waits."""
        raise NotImplementedError

    def _work(self, link: Link) -> None:
        """Run what a link's connection has to do."""
        raise NotImplementedError

    def _deliver(self, link: Link, message: Message | None) -> bool:
        """Send; False when the link has to wait (or is closed).  By the owner of the link."""
        if link.shared is not None:
            return self._deliver_shared(link, link.shared, message)
        if message is not None:
            try:
                if type(message) is bytes:
                    sent = link.stream.send(message)
                    if sent != len(message):
                        return self._keep(link, (memoryview(message)[sent:],))
                else:
                    return self._keep(link, message)
            except BlockingIOError:
                return self._keep(link, (message,) if isinstance(message, bytes) else message)
            except OSError as exc:
                self._close(link, exc)
                return False
        if link.connection.closing:
            self._close(link, None)
            return False
        return True

    def _keep(self, link: Link, parts: Iterable[Any]) -> bool:
        """Send as much as goes now, keep the rest until the peer takes it; nothing more is read meanwhile."""
        out = link.out = link.out or deque()
        out.extend(memoryview(part) for part in parts)
        return self._flush(link)

    def _flush(self, link: Link) -> bool:
        """Go on sending; True when all has gone."""
        if link.shared is not None:
            return self._flush_shared(link, link.shared)
        out = link.out
        if not out:
            return True
        try:
            while out:
                part = out[0]
                sent = link.stream.send(part)
                link.active = True
                if sent == len(part):
                    out.popleft()
                else:
                    out[0] = part[sent:]
        except BlockingIOError:
            if not link.busy:
                self._poller.set(link, WRITE)
            return False
        except OSError as exc:
            self._close(link, exc)
            return False
        link.out = None
        if link.connection.closing:
            self._close(link, None)
            return False
        if not link.busy:
            self._poller.set(link, READ)
            # requests that came behind the one that was answered are in the reader already
            if link.connection.reader.partial:
                self._work(link)
        return True

    # ----------------------------------------------------------------- calls that go on elsewhere
    def _left_open(self, link: Link, task: Task) -> bool:
        """A task will be answered later, in any thread; whether its link takes something else meanwhile."""
        if overlaps(task):
            shared = self._share(link, task)
            self._admits(link, shared)
            task.on_answer(lambda message: self._reply(link, shared, task, message))
            return True
        link.later = True
        task.on_answer(lambda message: self._answered(link, message))
        return False

    def _answered(self, link: Link, message: Message | None) -> None:
        link.later = False
        more = self._deliver(link, message) and link.connection.reader.partial
        self._give_back(link)
        if more:  # code of the program is run by the loop's threads, not by this one
            self._ask(lambda: self._resume(link))

    def _give_back(self, link: Link) -> None:
        """A link is not busy any more: poll it again."""
        with self._lock:
            link.busy = False
            parked, link.parked = link.parked, False
            shared = link.shared
            if shared is not None:
                with shared.lock:
                    self._watch(link, shared)
            elif self._links.get(link.fd) is link:
                if link.out:
                    self._poller.set(link, WRITE)
                elif parked:
                    self._poller.set(link, READ)

    def _resume(self, link: Link) -> None:
        """Look for requests that were received already; by the turning thread."""
        if self._links.get(link.fd) is link and not link.busy:
            self._work(link)

    def _share(self, link: Link, request: Request, *, elsewhere: bool = False) -> Shared:
        """A call is in flight while its link goes on; by the owner of the link."""
        shared = link.shared
        if shared is None:
            shared = link.shared = Shared()
        with shared.lock:
            shared.open += 1
            shared.elsewhere += elsewhere
            link.connection.begin(request)
        return shared

    def _reply(
        self, link: Link, shared: Shared, request: Request, message: Message | None, *, elsewhere: bool = False
    ) -> None:
        """Answer a call in flight, from any thread."""
        connection = link.connection
        with shared.lock:
            shared.open -= 1
            shared.elsewhere -= elsewhere
            if not connection.end(request):
                message = None
            error = self._send(link, message)
            more = shared.held and not connection.closing and self._has_room(link, shared, 3)
            if more:
                shared.held = False
            self._watch(link, shared)
        # what follows is left to the turning thread, which may be receiving now
        if error is not None:
            self._ask(lambda: self._close(link, error))
        elif connection.closing:
            self._ask(lambda: self._close_if_idle(link))
        elif more:
            self._ask(lambda: self._resume(link))

    def _deliver_shared(self, link: Link, shared: Shared, message: Message | None) -> bool:
        with shared.lock:
            error = self._send(link, message)
            self._watch(link, shared)
            ended = error is not None or self._is_over(link, shared)
            if not (shared.open or shared.held or ended) and shared.interest == READ:
                link.shared = None  # it belongs to its owner alone again
        if ended:
            self._close(link, error)
        return not ended

    def _ready_shared(self, link: Link, shared: Shared, mask: int) -> None:
        if mask & WRITE:
            self._flush(link)
        if mask & ~WRITE and self._links.get(link.fd) is link:
            if link.busy:
                self._park(link)
            elif not shared.held:
                self._receive(link)

    def _flush_shared(self, link: Link, shared: Shared) -> bool:
        with shared.lock:
            error = self._send(link, None)
            self._watch(link, shared)
            ended = error is not None or (not link.busy and self._is_over(link, shared))
            more = shared.held and not link.busy and self._has_room(link, shared, 3)
        if ended:
            self._close(link, error)
        elif more:
            self._work(link)
        return not ended and link.out is None

    def _admits(self, link: Link, shared: Shared) -> bool:
        """Whether a shared link may take another request; if not it is not read until some are answered."""
        with shared.lock:
            shared.held = link.connection.closing or not self._has_room(link, shared, 4)
            self._watch(link, shared)
            return not shared.held or link.connection.closing

    def _has_room(self, link: Link, shared: Shared, quarters: int) -> bool:
        """Whether less than so much of what a connection may have in flight is."""
        plan = link.connection.plan
        waiting = shared.waiting + (sum(map(len, link.out)) if link.out else 0)
        # a peer that never reads cannot make us keep more than one largest message would be
        return shared.open * 4 < plan.overlapping * quarters and waiting * 4 <= plan.limits.max_message_size * quarters

    # the following with the lock held
    def _send(self, link: Link, message: Message | None) -> OSError | None:
        """Send, or go on sending, what goes now; the reason if nothing goes any more."""
        if self._links.get(link.fd) is not link:
            return None  # closed; the descriptor may be another's
        out, shared = link.out or deque(), link.shared
        if message is not None:
            plan = link.connection.plan
            if type(message) is tuple and plan.parts and shared is not None and (shared.open or shared.large):
                shared.large.append(in_parts(message, plan.parts))  # others shall not wait for all of it
                shared.waiting += message_size(message)
            else:
                out.extend(memoryview(part) for part in ((message,) if isinstance(message, bytes) else message))
        try:
            while out or (shared is not None and self._next_part(shared, out)):
                sent = link.stream.send(out[0])
                link.active = True
                if sent == len(out[0]):
                    out.popleft()
                else:
                    out[0] = out[0][sent:]
        except BlockingIOError:
            link.out = out
        except OSError as exc:
            return exc
        else:
            link.out = None
        return None

    @staticmethod
    def _next_part(shared: Shared, out: deque[memoryview]) -> bool:
        """Take the next part of one of the large replies, which take turns; False when there is none."""
        while shared.large:
            reply = shared.large.popleft()
            part = next(reply, None)
            if part is not None:
                out.extend(memoryview(piece) for piece in part)
                shared.waiting -= len(part[1])
                shared.large.append(reply)
                return True
        return False

    def _is_over(self, link: Link, shared: Shared) -> bool:
        """Whether nothing is left to be done for a link that is to be closed."""
        connection = link.connection
        return connection.closing and link.out is None and (connection.broken or not shared.open)

    def _watch(self, link: Link, shared: Shared) -> None:
        interest = (0 if shared.held or link.parked else READ) | (WRITE if link.out else 0)
        if interest != shared.interest and self._links.get(link.fd) is link:
            shared.interest = interest
            self._poller.set(link, interest)

    # ----------------------------------------------------------------- clients go
    def _close(self, link: Link, error: BaseException | None) -> None:
        with self._lock:
            if self._links.get(link.fd) is link:
                del self._links[link.fd]
        shared = link.shared
        if shared is None:
            self._poller.forget(link)
            link.out = None
        else:
            with shared.lock:
                self._poller.forget(link)
                link.out = None
                link.stream.close()  # while nobody sends: the descriptor may be somebody else's at once
        connection = link.connection
        connection.closed(error)
        if shared is None and not link.busy:
            # nobody needs the way back any more; as a cycle they would wait for the garbage collector
            connection.carrier, connection.hang_up = None, link.stream.close

    def _close_if_idle(self, link: Link) -> None:
        if link.busy:
            return
        if link.shared is not None:
            self._deliver(link, None)
        else:
            self._close(link, None)

    def _sweep(self, now: float) -> None:
        greeting = self._greeting
        while greeting:
            link = greeting[0]
            deadline = link.connection.deadline
            if deadline is not None and link.connection.state is not State.CLOSED:
                if deadline > now:
                    break
                if not link.busy:
                    self._deliver(link, link.connection.expired().run())
            greeting.popleft()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_INTERVAL
        # those that are through or gone, but stand behind one that is slow
        self._greeting = deque(
            link for link in greeting if link.connection.deadline is not None and link.fd in self._links
        )
        while self._paused:
            self._poller.set(self._paused.pop(), READ)
        epoch = self._epoch
        for link in list(self._links.values()):
            self._check_idle(link, now)
            if self._epoch != epoch:
                return

    def _check_idle(self, link: Link, now: float) -> None:
        # no clock is read when bytes come: that they came is noted, and dated here
        pulse = link.connection.plan.pulse
        if pulse is not None and self._is_silent(link, pulse):
            log.warning("%s: no heartbeat for %g s (BEAT_INTERVAL), closing", link.connection.peer, pulse.patience)
            self._close(link, CommunicationError("no heartbeat"))
            return
        stalled = link.out is not None or link.connection.reader.partial
        if link.active or link.busy or (link.shared is not None and link.shared.open and not stalled):
            link.active = False
            link.idle_since = now
            return
        limits = link.connection.plan.limits
        idle = now - link.idle_since
        if stalled and limits.stall_timeout is not None and idle >= limits.stall_timeout:
            log.warning("%s: no progress inside a message for %.0f s, closing", link.connection.peer, idle)
            self._close(link, CommunicationError("stalled"))
        elif limits.idle_timeout is not None and idle >= limits.idle_timeout:
            log.info("%s: idle for %.0f s (COMMTIMEOUT), closing", link.connection.peer, idle)
            self._close(link, CommunicationError("idle"))

    def _is_silent(self, link: Link, pulse: Pulse) -> bool:
        """Whether a client whose calls are in flight has not shown for too long that it is there.

        Looks are counted, not seconds: a server that was stopped for a while, or had no time, blames nobody for it.
        """
        shared = link.shared
        if shared is None or not shared.open or shared.held or link.parked:
            link.silent = 0  # it has no reason to say anything, or nobody listens
            return False
        link.silent += 1
        return (link.silent - 1) * SWEEP_INTERVAL > pulse.patience

    # ----------------------------------------------------------------- the end
    def shutdown(self) -> None:
        """Make whoever runs the loop return."""
        self._end_soon()
        self._waker.wake()

    def _end_soon(self) -> None:
        if not self._stop:
            self._deadline = time.monotonic() + self._settings.SHUTDOWN_TIMEOUT
        self._stop = True

    def _drain(self) -> None:
        """Refuse further requests, and give those that run some time."""
        for link in list(self._links.values()):
            link.connection.drain()
        self._refuse_queued()
        while time.monotonic() < self._deadline and any(self._running(link) for link in list(self._links.values())):
            if self._may_turn():
                self._turn(0.005)  # somebody has to tell those who still call
            else:
                time.sleep(0.001)
        self._note_abandoned()

    def _note_abandoned(self) -> None:
        """Tell which calls were given time and did not end."""
        running = self._in_threads()
        for link in list(self._links.values()):
            if self._running(link):
                connection = link.connection
                calls = [*running, *connection.in_flight.values()]
                names = sorted({_name(call) for call in calls if getattr(call, "connection", None) is connection})
                self.abandoned += [f"{name} for {connection.peer}" for name in names or ["a call"]]
        if self.abandoned:
            log.warning(
                "abandoned, because not over within %g s (SHUTDOWN_TIMEOUT): %s",
                self._settings.SHUTDOWN_TIMEOUT,
                ", ".join(self.abandoned),
            )

    def _refuse_queued(self) -> None:
        """Refuse what waits for a thread."""

    def _may_turn(self) -> bool:
        """Whether the calling thread may turn the loop, which is to stop."""
        return self._turning_thread in (None, threading.get_ident())

    def _in_threads(self) -> list[Any]:
        """The tasks that threads of the loop run now."""
        return []

    def _running(self, link: Link) -> bool:
        call = current_call.get()  # a call that closes its own daemon cannot be waited for
        own = call is not None and call.connection is link.connection
        shared = link.shared
        if shared is None:
            return link.busy and not own
        among = own and call is not None and link.connection.in_flight.get(call.seq) is call
        return shared.open > among or (link.busy and (among or not own))

    def close(self) -> None:
        """Hang up on everybody and release everything."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.shutdown()
        self._drain()
        self._end_threads()
        for source in self._listeners:
            self._poller.forget(source)
        for link in list(self._links.values()):
            self._last_words(link)
            self._close(link, None)
        self._poller_closed = True
        self._poller.close()
        self._waker.close()

    def forked(self, served: bool) -> None:
        """In a forked child: have our own poller, because the parent's would tell the parent what we ask."""
        self._lock = threading.RLock()
        self._requests.clear()
        self._turning_thread = None
        self._poller.close()
        self._waker.close()
        links = list(self._links.values())
        if served:
            self._stop = self._closed = self._poller_closed = True
            self._links.clear()
            for link in links:
                link.connection.state = State.CLOSED
                if link.stream.sock is not None:
                    link.stream.close()
            return
        self._poller = Poller()
        self._waker = _Waker()
        if isinstance(self._poller, SelectorPoller):
            self._poller.wake = self._waker.wake
        for source in (self._waker, *self._listeners, *links):
            self._poller.add(source, READ)

    def _last_words(self, link: Link) -> None:
        """What a finished call still has to send gets a short, blocking chance."""
        if link.out:
            with contextlib.suppress(OSError):
                link.stream.settimeout(1.0)
                out, shared = link.out, link.shared
                while out or (shared is not None and self._next_part(shared, out)):
                    part = out.popleft()
                    sent = link.stream.send(part)
                    if sent < len(part):
                        out.appendleft(part[sent:])

    def _end_threads(self) -> None:
        """Threads of the loop end here."""
