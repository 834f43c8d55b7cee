"""The server side of a call: from the bytes of a request to the bytes of its reply.

Nothing here knows a feature.  What plugins want done stands in the connection's plan, as tuples and
dicts that are empty when nobody wants anything.
"""

from __future__ import annotations

import enum
import logging
import traceback
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from .call import Call, current_call
from .errors import DaemonError, MessageTooLargeError, OverloadError, PyroError, SerializeError
from .wire import (
    FLAG_CORR_ID,
    FLAG_EXCEPTION,
    FLAG_ONEWAY,
    IN_PLACE,
    MAGIC,
    NO_CORRELATION,
    RESULT,
    Message,
    encode,
    pack_plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .interfaces import Codec

__all__ = ["LATER", "Later", "Request", "invoke", "plain_traceback", "report"]

log = logging.getLogger("pyroplug.dispatch")


class Later(enum.Enum):
    """The type of :data:`LATER`."""

    LATER = "later"


_enter, _leave = current_call.set, current_call.reset

LATER: Final = Later.LATER
"""What stands in place of a result, or of a reply, that is not there yet; see :class:`Request`."""


def plain_traceback(exc: BaseException) -> list[str]:
    """The lines of the usual traceback, causes and notes included."""
    lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
    return [line + "\n" for entry in lines for line in entry.splitlines()]


def invoke(call: Call, object_id: str, method: str, args: Any, kwargs: Any) -> Any:
    """Run one method; every call, plain or not, ends here.

    :raises DaemonError: there is no such object
    :raises AttributeError: there is no such member, or it is not exposed
    """
    entry = call.connection.objects.get(object_id)
    if entry is None:
        raise DaemonError(f"unknown object: {object_id}")
    if entry.dynamic:
        function = entry.table[method]
        instance = entry.instance(call.connection)
        return function(instance, *args, **kwargs)
    return entry.table[method](*args, **kwargs)


class Request(Call):
    """A call on the server side.  :meth:`run` does it all and never raises.

    A call can be answered after :meth:`run` has returned, so that it needs no thread meanwhile.  Whoever makes the
    result, most often a result adapter of a plugin, returns :data:`LATER` in its place and keeps the request; from
    then on :meth:`finish` or :meth:`fail` may be called, at any time and in any thread, even before :meth:`run`
    has returned.  A plugin that has ``async def`` methods run on an event loop of its own::

        def answer_later(call, coroutine):
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)

            def done(future):
                if future.exception() is None:
                    call.finish(future.result())
                else:
                    call.fail(future.exception())

            future.add_done_callback(done)
            return LATER


        STEPS = Steps(results=[(collections.abc.Coroutine, answer_later)])

    The first answer counts, any further one is dropped.  A client whose calls may not overlap gets nothing
    else until then, so a request that was taken must be answered.  A daemon that shuts down waits SHUTDOWN_TIMEOUT
    seconds for it.
    """

    quick = False
    _refusal: PyroError | None = None
    _stopped: PyroError | None = None

    # ----------------------------------------------------------------- for server loops
    def run(self) -> Message | Later | None:
        """Decode, call, and encode the reply; None when nothing is to be sent (now).

        LATER: the server loop is to call :meth:`on_answer`.
        """
        plan = self.plan
        if self.flags & plan.flag_mask:
            try:
                self._apply_flags()
            except BaseException as exc:
                return self._failed(exc)
            if self.runner is not None:
                self.runner(self.execute)
                return None
        return self.execute()

    def refuse(self, error: PyroError) -> Message | None:
        """Answer with an error instead of calling anything."""
        if self.flags & self.plan.flag_mask:
            try:
                self._apply_flags()  # tells whether a reply is wanted
            except Exception:
                log.exception("a refused request could not be looked at")
        self._refusal = error
        return self._failed(error)

    def on_answer(self, deliver: Callable[[Message | None], None]) -> None:
        """After LATER: have ``deliver`` called once with the bytes to send, if any.

        That happens in the thread of :meth:`finish` or :meth:`fail`, or in this one if it was called already.
        """
        answer = self._meet(deliver)
        if answer is not deliver:
            deliver(*answer)

    # ----------------------------------------------------------------- for whoever returned LATER
    def finish(self, result: Any) -> bool:
        """Answer with a result, as if the method had returned it; False if the request was answered already.

        Result adapters and plugins see it, in the call's context; what cannot be encoded is answered with the
        error.  Never raises.
        """
        token = current_call.set(self)
        try:
            adapters = self.plan.results
            adapter = adapters[type(result)] if adapters is not None and "_claim" not in self.__dict__ else None
            if adapter is not None:
                result = adapter(self, result)
                if result is LATER:
                    return True
        except BaseException as exc:  # code of plugins and of the program
            return self.fail(exc)
        finally:
            current_call.reset(token)
        return self._answer(self._replied, result)

    def fail(self, exc: BaseException) -> bool:
        """Answer with an exception, as if the method had raised it; False if the request was answered already."""
        return self._answer(self._failed, exc)

    def _answer(self, encoded: Callable[[Any], Message | None], what: Any) -> bool:
        # setdefault is one step, whatever other threads do: that is how the first of two is found, here and in _meet
        claim = object()
        if self.__dict__.setdefault("_claim", claim) is not claim:
            return False
        token = current_call.set(self)
        try:
            answer = (encoded(what),)
        finally:
            current_call.reset(token)
        deliver = self._meet(answer)
        if deliver is not answer:
            deliver(*answer)
        return True

    def _meet(self, mine: Any) -> Any:
        """The server loop and the answer come in any order: the first leaves what it has, the second gets that."""
        return self.__dict__.setdefault("_meeting", mine)

    def _replied(self, result: Any) -> Message | None:
        try:
            return self._reply(self.plan.codecs[self.serializer_id], result)
        except BaseException as exc:  # as in execute
            return self._failed(exc)

    # ----------------------------------------------------------------- a call that nobody waits for
    def stop(self, error: PyroError) -> None:
        """Nobody wants the answer any more: the method is not called if it was not, and whoever works on it is told.

        What is answered nevertheless is ``error`` or, if the work went on, the result.  Any thread, any number of
        times.
        """
        self.__dict__.setdefault("_stopped", error)
        self._tell_stopped()

    def when_stopped(self, function: Callable[[], object]) -> None:
        """Have a function called once when :meth:`stop` is, in its thread; at once if it was."""
        self.__dict__.setdefault("_stoppers", deque()).append(function)
        if self._stopped is not None:
            self._tell_stopped()

    def _tell_stopped(self) -> None:
        stoppers: deque[Callable[[], object]] = self.__dict__.setdefault("_stoppers", deque())
        while stoppers:
            try:
                function = stoppers.popleft()
            except IndexError:  # another thread was faster
                return
            function()

    # ----------------------------------------------------------------- inside
    def execute(self) -> Message | Later | None:
        """The call itself, in whatever thread it is to run."""
        plan = self.plan
        token = _enter(self)
        try:
            if self.annotations and plan.annotations:
                self._take_annotations()
            for step in plan.on_received:
                step(self)
            codec = plan.codecs.get(self.serializer_id)
            if codec is None:
                raise self._unknown_serializer()
            if self._stopped is not None:
                raise self._stopped
            object_id, method, args, kwargs = (
                codec.loads_call(self.payload) if self.decode is None else self.decode(self)
            )
            self.payload = None  # the arguments may be large; nobody needs their bytes any more
            self.object_id, self.method, self.args, self.kwargs = object_id, method, args, kwargs
            result = invoke(self, object_id, method, args, kwargs) if self.invoke is None else self.invoke(self)
            if plan.results is not None:
                adapter = plan.results[type(result)]
                if adapter is not None:
                    result = adapter(self, result)
            if result is LATER:
                return Later.LATER
            answer = plan.answers.get(self.serializer_id)
            if (
                answer is None
                or not self.wants_reply
                or self.reply_payload is not None
                or self.reply_flags
                or self.substitute is not None
                or self.correlation is not NO_CORRELATION
            ):
                return self._reply(codec, result)
            # what _reply comes to for a small result that nobody has added anything to, in one piece
            payload = codec.dumps(result)
            size = len(payload)
            if size >= plan.small or self.reply_annotations is not None:
                return self._encode(codec, result, 0, payload)
            return pack_plain(answer, self.seq, size, MAGIC) + payload
        except BaseException as exc:  # whatever user code raises, even SystemExit, is answered
            return self._failed(exc)
        finally:
            _leave(token)

    def _take_annotations(self) -> None:
        given, handlers = self.annotations, self.plan.annotations
        self.annotations = {key: value for key, value in given.items() if key not in handlers}
        for key, handler in handlers.items():
            if key in given:
                handler(self, given[key])

    def _apply_flags(self) -> None:
        plan = self.plan
        for bit, inflate in plan.inflaters.items():
            if self.flags & bit:
                self.payload = inflate(self.payload, plan.limits.max_message_size)
                self.flags &= ~bit
        if self.flags & FLAG_ONEWAY:
            self.wants_reply = False  # the wire's rule, whatever plugins make of such calls
        for bit, handler in plan.flags.items():
            if self.flags & bit:
                handler(self)

    def _reply(self, codec: Codec, result: Any) -> Message | None:
        if not self.wants_reply:
            return None
        for step in self.plan.before_reply:
            step(self)
        if self.substitute is None:
            return self._encode(codec, result, 0)
        try:
            return self._encode(codec, result, 0)
        except PyroError as why:
            return self._encode(codec, self.substitute(self, result, why), 0)

    def _encode(self, codec: Codec, value: Any, flags: int, encoded: bytes | None = None) -> Message:
        plan = self.plan
        payload = self.reply_payload
        if payload is None:
            payload = codec.dumps(value) if encoded is None else encoded
            if len(payload) >= IN_PLACE and self.serializer_id in plan.replies:
                payload = plan.replies[self.serializer_id](value, payload)
        flags |= self.reply_flags
        for payload_filter in plan.payload:
            changed = payload_filter.encode(payload)
            if changed is not None:
                payload = changed
                flags |= payload_filter.flag
        correlation = self.correlation
        if correlation is not NO_CORRELATION:
            flags |= FLAG_CORR_ID
        return encode(
            RESULT,
            self.serializer_id,
            flags,
            self.seq,
            payload,
            self.reply_annotations,
            correlation,
            plan.limits.max_message_size,
        )

    def _failed(self, exc: BaseException) -> Message | None:
        """The reply for an exception; whatever else goes wrong, there is one."""
        plan = self.plan
        self.error = exc
        if isinstance(exc, OverloadError):
            exc.refused = exc is self._refusal
        self.reply_flags = 0
        self.reply_annotations = None  # what a method said about its result does not hold for a failure
        self.reply_payload = None
        refused = _refused_by_us(exc.__traceback__) and not isinstance(exc, StopIteration)  # which is no failure
        exc.__traceback__ = _of_program(exc.__traceback__)
        off = plan.switched_off
        if refused and off and isinstance(exc, (AttributeError, SerializeError)) and not str(exc).endswith(off):
            exc.args = (f"{exc}{off}", *exc.args[1:])
        lines = report(self, exc)
        if refused or not self.wants_reply:
            # names and texts may be the peer's: shown so that they cannot pass for further lines of the log
            kind, what = "call" if self.wants_reply else "oneway call", f"{self.object_id}.{self.method}"
            log.warning("%s: %s of %r failed: %r", self.connection.peer, kind, what, exc)
        if not self.wants_reply:
            return None
        codec = plan.codecs.get(self.serializer_id)
        if codec is None:
            self.serializer_id, codec = min(plan.codecs.items())
        try:
            for step in plan.before_reply:
                step(self)
            return self._encode(codec, plan.error_to_dict(exc, lines), FLAG_EXCEPTION)
        except Exception as why:
            # the exception carries something that cannot travel: describe it instead
            self.reply_annotations = None
            if isinstance(why, MessageTooLargeError):
                lines = lines[:1] + lines[-1:]
            return self._encode(codec, plan.describe_error(exc, lines, str(why)), FLAG_EXCEPTION)

    def _unknown_serializer(self) -> SerializeError:
        accepted = ", ".join(sorted(self.plan.names.values()))
        return SerializeError(
            f"message used serializer that is not accepted: {self.serializer_id} (accepted are: {accepted})"
        )


def report(call: Call, exc: BaseException) -> list[str]:
    """Tell the plugins of an exception of the program, and take its traceback: the lines for the peer."""
    plan = call.plan
    for hook in plan.on_error:
        _isolated(hook, call, exc)
    try:
        lines = (plan.format_traceback or plain_traceback)(exc)
    except Exception:
        log.exception("the traceback of a failed call could not be formatted")
        lines = plain_traceback(exc)
    exc.__traceback__ = None  # frames keep arguments and the call alive
    return lines


def _of_program(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without our own frames at its beginning, which tell nobody anything."""
    start = trace
    while start is not None and _is_ours(start):
        start = start.tb_next
    return start or trace


def _refused_by_us(trace: TracebackType | None) -> bool:
    """Whether a failure has no frame of the program: what the client sent did not get that far."""
    if trace is None:
        return False
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    return trace is None


def _is_ours(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).startswith("pyroplug.")


def _isolated(hook: Callable[[Call, BaseException], None], call: Call, exc: BaseException) -> None:
    try:
        hook(call, exc)
    except Exception:
        log.exception("error hook %r failed; the call's reply is not affected", hook)
