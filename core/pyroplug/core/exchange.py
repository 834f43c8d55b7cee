"""The client's end of a connection: messages go out with numbers, and each answer finds who waits for it.

There is no thread for this.  Whoever waits for an answer reads for everybody::

                          +-- nobody reads: takes the role ------------------+
                          |                                                  v
    registered --sent--> waits at its gate --told to, or given the role--> reads, hands out the answers of others
                          |                                                  |
                          +-- given its answer --> has it <--- reads its own +--> gives the role back, tells another

* Two locks, neither of which is held while the other is waited for.  ``_sending`` is held while a number is taken, its waiter is
  registered and the message goes out.  ``_turn`` is the reader's role, and only ever tried for.
* The role is given back first, and looked for others that wait after that; they have made themselves known
  before they try for it.  So one of both sees the other, and no answer is left lying.
* A caller that gives up (its time is over, Ctrl-C) leaves its waiter behind: the number is not used again before
  its answer has come, which nobody gets.
* Whatever breaks the connection ends all waits, each with an error of its own.

A connection that does not overlap has one caller at a time (its owner holds a lock) and is broken by giving up.
"""

from __future__ import annotations

import builtins
import errno
import math
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import (
    CommunicationError,
    ConnectionClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    TimeoutError,
)
from .wire import MARSHAL_ID, NO_CORRELATION, Frame, FrameReader, Message, encode, send_all

if TYPE_CHECKING:
    from .interfaces import Buffer, Stream
    from .plan import Limits, Pulse

__all__ = ["Exchange", "Lost", "Waiter"]

RECEIVE_SIZE = 16 * 1024
"""How much is received at once (bytes); larger bodies get a buffer of their own."""

NOTE_TIME = 0.1
"""Seconds that are spent at most on telling the other side that a call was given up."""
_LONGEST_WAIT = 86_400.0
"""Seconds; longer waits are several."""

FREE, READING, LEFTOVER = -1, -2, -3
"""What ``_short`` is when it is no number: nobody reads; somebody does; nobody, and something is left in the reader."""


class Lost(Exception):
    """A call failed on its way, and not by an answer: ``error`` is what the caller is to be told.

    ``sent`` tells whether the other side may have seen the request.
    """

    def __init__(self, error: CommunicationError, *, sent: bool = True) -> None:
        super().__init__(error)
        self.error = error
        self.sent = sent


class Waiter:
    """Somebody who waits for an answer of a type."""

    __slots__ = ("error", "frame", "gate", "kind", "number", "waits", "wanted")

    def __init__(self, kind: int, *, wanted: bool = True) -> None:
        self.kind = kind
        self.number = -1
        """That of the request, once it is sent."""
        self.frame: Frame | None = None
        self.error: CommunicationError | None = None
        self.wanted = wanted
        """Nobody has given up."""
        self.waits = False
        """The request has gone out, and the answer is wanted: it may be told to read."""
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        """Have it look again: at its answer, or whether it is to read."""
        try:
            self.gate.release()
        except RuntimeError:
            return  # it was told already, and has not come to look yet


class Exchange:
    """Sends messages over a stream, and brings each its answer."""

    # on the class: what most connections never change
    timeout: float | None = None
    overlapping = False
    """Whether many calls may be under way together."""
    failure: CommunicationError | None = None
    """Why it cannot be used any more."""
    _limit = 1
    _sends = False
    _torn = False
    """Bytes were received, and it is not sure that the reader of frames has got them."""
    _retired = False
    _part_type = 0
    """The message type of parts of large answers; 0: there are none."""
    _on_given_up: Sequence[Callable[[Any, int], None]] = ()
    """Told of the number of each call that its caller gave up, while messages still can be sent."""
    _pulse: Pulse | None = None
    """How the server is shown that this side is there; while somebody waits."""
    _beat_due = 0.0
    _unanswered = 0
    """Beats that were sent since something was heard."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self.stream = stream
        self.seq = 0
        self.reader = FrameReader(limits.max_message_size, limits.max_annotations)
        self._max_size = limits.max_message_size
        self._buffer = bytearray(RECEIVE_SIZE)
        self._view = memoryview(self._buffer)
        # both know their owner, so that what an interrupted thread has left locked is seen and undone
        self._turn = threading.RLock()
        self._sending = threading.RLock()
        self._short = FREE
        """The number of the call on the short way (it is not registered), or one of the values above."""
        self._reader = 0
        """The thread that reads, while ``_short`` says that one does."""
        self._waiters: dict[int, Waiter] = {}
        self._queue: deque[Waiter] = deque()
        """Who wants to send, and finds too many calls under way."""
        self._heard = 0
        self._parts: dict[int, FrameReader] = {}
        """What has come of large answers, by number; the reader's."""

    def settimeout(self, seconds: float | None) -> None:
        """How long a call may take from now on (seconds; None: no limit)."""
        if seconds != self.timeout:
            self.stream.settimeout(seconds)
            self.timeout = seconds

    @property
    def peer(self) -> str:
        """The server, as text."""
        return self.stream.peer

    # ----------------------------------------------------------------- the end
    @property
    def gone(self) -> bool:
        """Whether it takes no further calls."""
        return self._retired or self.failure is not None

    def close(self) -> None:
        """Hang up; calls under way fail."""
        self._break(ConnectionClosedError(f"connection with {self.peer} was closed by this side"))

    def forsaken(self) -> None:
        """Its owner was collected, so nobody is in the middle of a call.  Takes no lock: this may run anywhere."""
        self.stream.close()

    def forked(self) -> None:
        """In a forked child: forget it, without a byte to the other side, which goes on with the parent."""
        self._turn = threading.RLock()
        self._sending = threading.RLock()
        self._waiters = {}
        self._queue.clear()
        self._short = FREE
        self._sends = False
        self.failure = ConnectionClosedError(f"the connection with {self.peer} belongs to the process that was forked")
        self._block()
        if self.stream.sock is not None:  # what has no socket may have locks, which another thread held
            self.stream.close()

    def retire(self) -> None:
        """Take no further calls, and hang up when the last one that is under way has ended."""
        self._retired = True
        self._block()
        self._close_if_idle()

    def _block(self) -> None:
        """Keep calls from the short way, so that they find out that there is no way."""
        self._waiters[-1] = Waiter(0, wanted=False)

    def _close_if_idle(self) -> None:
        """Close it when it is retired and nobody uses it; whoever stops using it comes here again."""
        if self._others_wait():
            return
        if self._sending.acquire(False):
            self._sending.release()
            if not self._others_wait():
                self.close()

    def _others_wait(self) -> bool:
        return self._short >= 0 or any(waiter.wanted for waiter in tuple(self._waiters.values()))

    def _break(self, error: CommunicationError) -> None:
        """It cannot be used any more: every wait ends.  Takes no lock."""
        if self.failure is None:
            # another object: the one that is raised gets a traceback, which leads back to this connection
            self.failure = ConnectionClosedError(str(error))
        self.stream.close()
        waiters = self._waiters
        while waiters:
            try:
                waiter = waiters.popitem()[1]
            except KeyError:  # another thread was faster
                break
            # an exception object for each: they get tracebacks, and may be changed
            waiter.error = ConnectionClosedError(str(error))
            waiter.wake()
        self._block()
        while self._queue:
            self._next_in_queue()

    # ----------------------------------------------------------------- asking
    def ask(
        self,
        kind: int,
        serializer_id: int,
        flags: int,
        payload: Buffer,
        annotations: Mapping[str, Buffer] | None = None,
        correlation: bytes = NO_CORRELATION,
        *,
        answer: int,
        expires: float | None = None,
        waiter: Waiter | None = None,
    ) -> Frame:
        """Send a message, and wait for the one of type ``answer`` with its number.

        :param waiter: what to wait with, for those who want to :meth:`withdraw` it
        :param expires: when the time for it is over (``time.monotonic()`` seconds), if that is before ``timeout``
        :raises Lost: none came
        :raises PyroError: anything else: nothing was sent
        """
        own = expires is not None
        if self.timeout is not None:
            latest = time.monotonic() + self.timeout
            if expires is None or expires > latest:
                expires, own = latest, False
        waiter = waiter or Waiter(answer)
        heard = self._heard
        try:
            while True:
                with self._sending:
                    self._may_send()
                    if waiter.error is not None:
                        raise Lost(waiter.error, sent=False)
                    if len(self._waiters) < self._limit:
                        number = self._number()
                        message = encode(
                            kind, serializer_id, flags, number, payload, annotations, correlation, self._max_size
                        )
                        waiter.number = number
                        self._waiters[number] = waiter
                        self._send(message)
                        break
                self._wait_in_queue(expires)
        except BaseException:
            waiter.wanted = False
            raise
        if waiter.error is not None:  # withdrawn while it was sent, perhaps before it had its number
            self._tell_given_up(waiter.number)
        return self._wait(waiter, expires, heard, own)

    def post(
        self,
        kind: int,
        serializer_id: int,
        flags: int,
        payload: Buffer,
        annotations: Mapping[str, Buffer] | None = None,
        correlation: bytes = NO_CORRELATION,
    ) -> None:
        """Send a message that has no answer.

        :raises Lost: it was not sent
        """
        with self._sending:
            self._may_send()
            seq = self._number()
            self._send(encode(kind, serializer_id, flags, seq, payload, annotations, correlation, self._max_size))
        if self._retired:
            self._close_if_idle()

    def note(self, kind: int, serializer_id: int, number: int) -> bool:
        """Send a small message about another one, whose number it has; False if it does not go soon."""
        if not self._sending.acquire(timeout=NOTE_TIME):
            return False
        try:
            if self._sends or self.failure is not None or not _writable(self.stream, NOTE_TIME):
                return False
            self._send(encode(kind, serializer_id, 0, number, b""))
        except (OSError, Lost):
            return False
        finally:
            self._sending.release()
        return True

    def withdraw(self, waiter: Waiter, error: CommunicationError) -> bool:
        """End somebody else's wait: nobody wants the answer any more; False if it is there.

        Whoever reads for others meanwhile goes on until his own answer comes, too.
        """
        if waiter.frame is not None or not waiter.wanted:
            return False
        waiter.error = error
        waiter.wanted = False
        if waiter.number >= 0:
            self._tell_given_up(waiter.number)
        waiter.wake()
        return True

    def _tell_given_up(self, number: int) -> None:
        for hook in self._on_given_up:
            hook(self, number)

    def _may_send(self) -> None:
        if self._sends or (self._reader == threading.get_ident() and self._short not in (FREE, LEFTOVER)):
            raise LocalProtocolError("this connection is in the middle of another call (of the same thread)")
        if self._retired:
            raise Lost(ConnectionClosedError(f"connection with {self.peer} was released"), sent=False)
        if self.failure is not None:
            raise Lost(ConnectionClosedError(str(self.failure)), sent=False)

    def _number(self) -> int:
        number = self.seq
        while True:
            number = (number + 1) & 0xFFFF
            if number not in self._waiters and number != self._short:
                self.seq = number
                return number

    def _send(self, message: Message) -> None:
        """Send, with ``_sending`` held; a message that was not sent as a whole breaks the connection."""
        self._sends = True
        try:
            send = self.stream.send
            if type(message) is bytes:
                sent = send(message)
                if sent < len(message):
                    send_all(send, (memoryview(message)[sent:],))
            else:
                send_all(send, message)
        except BaseException as exc:
            error = self._translated(exc, sending=True)
            self._break(error)
            if isinstance(exc, OSError):
                raise Lost(error) from None
            raise
        finally:
            self._sends = False

    def _wait_in_queue(self, expires: float | None) -> None:
        """Too many calls are under way: wait until one has ended."""
        waiter = Waiter(0)
        self._queue.append(waiter)
        if len(self._waiters) < self._limit or self.failure is not None:
            self._next_in_queue()  # meanwhile, when nobody was there to be told
        told = False
        try:
            told = waiter.gate.acquire(timeout=_left(expires))
        finally:
            if not told:
                try:
                    self._queue.remove(waiter)
                except ValueError:
                    self._next_in_queue()  # it was told just now; others wait too
        if not told:
            text = f"timeout, the call was not sent: {self._limit} are under way to {self.peer}"
            raise Lost(TimeoutError(text), sent=False)

    def _next_in_queue(self) -> None:
        try:
            self._queue.popleft().wake()
        except IndexError:
            return

    def first_frame(self) -> Frame:
        """The first message of the other side, which is the answer to the first of this side.

        :raises Lost: none came
        """
        expires = None if self.timeout is None else time.monotonic() + self.timeout
        try:
            while (frame := self.reader.next_frame()) is None:
                if self.reader.partial and not self.stream.pending():
                    _wait_until_readable(self.stream, expires)
                self._receive()
        except OSError as exc:
            raise Lost(self._translated(exc)) from None
        except ConnectionClosedError as exc:
            raise Lost(exc) from None
        return frame

    def _translated(self, exc: BaseException, sending: bool = False) -> CommunicationError:
        """What an error of the operating system means to a caller."""
        doing, peer = "sending" if sending else "receiving", self.peer
        error: CommunicationError
        if isinstance(exc, builtins.TimeoutError):
            error = TimeoutError(f"{doing}: timeout, {peer} did not answer in time")
        else:
            error = ConnectionClosedError(f"{doing}: connection with {peer} lost: {exc}")
        error.__cause__ = exc
        return error

    # ----------------------------------------------------------------- waiting
    def _wait(self, waiter: Waiter, expires: float | None, heard: int, own: bool = False, reads: bool = False) -> Frame:
        """Wait until the answer is there, reading for all where nobody else does.

        :param heard: what ``_heard`` was when the call began
        :param own: the time is the call's own, not the stream's
        :param reads: this thread has the reader's role already
        """
        careful = own or (self.overlapping and threading.current_thread() is threading.main_thread())
        waiter.waits = True
        try:
            while waiter.frame is None and waiter.error is None:
                if reads or self._turn.acquire(blocking=False):
                    reads = False
                    self._read(waiter, expires, careful)
                elif not waiter.gate.acquire(timeout=_left(expires)):
                    raise builtins.TimeoutError
        except BaseException as exc:
            self._give_up(waiter, exc, heard)
        if waiter.error is not None and self.failure is None:
            waiter.waits = False
            self._tell_another()  # this one was withdrawn, and may have been told to read
        if self._retired:
            waiter.wanted = False
            self._close_if_idle()
        if waiter.error is not None:
            raise Lost(waiter.error)
        assert waiter.frame is not None
        return waiter.frame

    def _read(self, waiter: Waiter, expires: float | None, careful: bool) -> None:
        """Receive, and hand out what comes, until this waiter has its answer; gives the role back.

        :param careful: wait where an interruption costs nothing, and not in the middle of receiving
        """
        try:
            self._reader, self._short = threading.get_ident(), READING
            pulse = self._pulse
            if pulse is not None and time.monotonic() > self._beat_due + pulse.interval:
                self._beat_due = time.monotonic() + pulse.interval  # nobody waited meanwhile
            while waiter.frame is None and waiter.error is None:
                frame = self.reader.next_frame()
                if frame is not None:
                    self._hand_out(frame)
                    continue
                if pulse is not None and not self.stream.pending():
                    self._listen(pulse, expires)
                elif careful and not self.stream.pending():
                    _wait_until_readable(self.stream, expires)
                self._receive()
                careful = careful or expires is not None  # the time is for the answer as a whole, not for each piece
        except builtins.TimeoutError:
            self._torn = False
            raise
        except BaseException as exc:
            if self._torn or isinstance(exc, (OSError, CommunicationError)):
                error = exc if isinstance(exc, CommunicationError) else self._translated(exc)
                self._break(error)
                if isinstance(exc, Exception):
                    waiter.error = error
                    return
            raise
        finally:
            self._give_back()

    def _listen(self, pulse: Pulse, expires: float | None) -> None:
        """Wait until there is something to receive, and show meanwhile that this side is there."""
        while True:
            due = self._beat_due
            if time.monotonic() >= due:
                self._beat(pulse)
                continue
            try:
                _wait_until_readable(self.stream, due if expires is None else min(due, expires))
            except builtins.TimeoutError:
                if expires is not None and time.monotonic() >= expires:
                    raise
            else:
                return

    def _beat(self, pulse: Pulse) -> None:
        """Show the server that this side is there.

        Beats are counted, not seconds: a program that was stopped for a while has missed nothing.  What cannot be sent,
        because a large message is on its way, counts for nothing.

        :raises ConnectionClosedError: it has answered none of the last ones
        """
        if self._unanswered >= pulse.missed:
            raise ConnectionClosedError(
                f"no heartbeat of {self.peer} for {pulse.patience:g} s "
                f"(BEAT_INTERVAL={pulse.interval:g}, BEAT_MISSED={pulse.missed}): it is gone, or the network is"
            )
        self._beat_due = time.monotonic() + pulse.interval
        if self.note(pulse.kind, MARSHAL_ID, 0):
            self._unanswered += 1

    def _receive(self) -> None:
        """Receive something into the reader of frames."""
        stream, reader = self.stream, self.reader
        self._torn = True
        target = reader.writable()
        if target is None:
            count = stream.recv_into(self._buffer)
            reader.feed(bytes(self._view[:count]))
        else:
            count = stream.recv_into(target)
            reader.wrote(count)
        self._torn = False
        self._heard += 1
        self._unanswered = 0
        if not count:
            raise self._ended()

    def _ended(self) -> ConnectionClosedError:
        return ConnectionClosedError(f"receiving: connection with {self.peer} was closed by the other side")

    def _hand_out(self, frame: Frame) -> None:
        """Give an answer to whom it belongs."""
        if self._pulse is not None and frame.type == self._pulse.kind:
            return
        if frame.type == self._part_type and frame.seq in self._waiters:
            parts = self._parts.get(frame.seq)
            if parts is None:
                parts = self._parts[frame.seq] = FrameReader(self.reader.max_size, self.reader.max_annotations)
                parts.max_segments = self.reader.max_segments
            parts.feed(bytes(frame.payload))
            whole = parts.next_frame()
            if whole is None:
                return
            del self._parts[frame.seq]
            if whole.seq != frame.seq or parts.partial:
                raise RemoteProtocolError(f"{self.peer} sent parts of something else with sequence {frame.seq}")
            frame = whole
        waiter = self._waiters.get(frame.seq)
        if waiter is None or waiter.kind != frame.type:
            numbers = [number for number in tuple(self._waiters) if number >= 0]
            expected = f"the reply to {numbers[0]}" if len(numbers) == 1 else f"replies to {len(numbers)} other calls"
            raise RemoteProtocolError(
                f"{self.peer} sent message type {frame.type} with sequence {frame.seq}, expected {expected}"
            )
        self._waiters.pop(frame.seq, None)
        waiter.frame = frame
        waiter.wake()
        if self._queue:
            self._next_in_queue()

    def _give_back(self) -> None:
        """Nobody reads now; if somebody else waits, have him do it."""
        self._short = LEFTOVER if self.reader.partial else FREE
        self._turn.release()
        if self._waiters:
            self._tell_another()

    def _tell_another(self) -> None:
        # (a copy: others come and go.)  The newest: it is likely to read for the others longest; and where a signal
        # handler makes a call while its own thread waits here, it is the handler's, which alone can go on
        for waiter in reversed(tuple(self._waiters.values())):
            if waiter.waits and waiter.frame is None:
                waiter.wake()
                return
        if self._retired:
            self._close_if_idle()

    def _give_up(self, waiter: Waiter, exc: BaseException, heard: int) -> None:
        """A wait was ended by an exception.  Afterwards the waiter has an error or, by chance, its answer.

        :param heard: what ``_heard`` was when it began
        :raises BaseException: ``exc``, where it is not for us to say what it means
        """
        waiter.waits = False
        self._let_go()
        answered = waiter.frame is not None  # looked at once: what the server answers because it is told does not count
        if self.failure is None and waiter.number >= 0 and not answered:
            self._tell_given_up(waiter.number)
        waiter.wanted = False
        if answered and isinstance(exc, builtins.TimeoutError):
            return
        usable = self.overlapping and self.failure is None
        if not isinstance(exc, builtins.TimeoutError):
            if not usable:
                self._break(ConnectionClosedError(f"receiving: the call to {self.peer} was interrupted"))
            raise exc
        error = self._translated(exc)
        if usable and heard == self._heard:
            self._retired = True  # for all we know the server is dead: the next call finds out, the others may wait
            self._block()
            usable = self._others_wait()
        if not usable:
            self._break(error)
        waiter.error = error

    def _let_go(self) -> None:
        """Give back the reader's role, if this thread still has it, and see that somebody has it who waits."""
        if self._turn.acquire(blocking=False):
            self._short = LEFTOVER if self.reader.partial else FREE
            try:
                while True:  # once, or twice
                    self._turn.release()
            except RuntimeError:
                pass
        self._tell_another()


def _left(expires: float | None) -> float:
    """How long a lock may be waited for: -1 for ever."""
    return -1.0 if expires is None else min(threading.TIMEOUT_MAX, max(0.0, expires - time.monotonic()))


def _writable(stream: Stream, seconds: float) -> bool:
    """Whether a small message goes out without waiting, in that time."""
    fd = stream.fileno()
    if fd < 0:
        return False
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        return bool(poller.poll(math.ceil(seconds * 1000)))
    return bool(select.select([], [fd], [], seconds)[1])


def _wait_until_readable(stream: Stream, expires: float | None) -> None:
    """Wait until there is something to receive.

    :raises builtins.TimeoutError: the time is over (``time.monotonic()`` seconds)
    :raises OSError: the stream was closed
    """
    fd = stream.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, "the stream was closed")
    left = None if expires is None else min(_LONGEST_WAIT, max(0.0, expires - time.monotonic()))
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        ready: object = poller.poll(None if left is None else math.ceil(left * 1000))
    else:
        ready = select.select([fd], [], [], left)[0]
    if not ready and (expires is None or time.monotonic() >= expires):
        raise builtins.TimeoutError
