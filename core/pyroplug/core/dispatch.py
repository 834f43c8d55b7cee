"""The server side of a call: from the bytes of a request to the bytes of its reply.

Nothing here knows a feature.  What plugins want done stands in the connection's plan, as tuples and
dicts that are empty when nobody wants anything.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .call import Call, current_call
from .errors import DaemonError, MessageTooLargeError, PyroError, SerializeError
from .wire import FLAG_CORR_ID, FLAG_EXCEPTION, FLAG_ONEWAY, NO_CORRELATION, RESULT, Message, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from .interfaces import Codec

__all__ = ["Request", "invoke", "plain_traceback", "report"]

log = logging.getLogger("pyroplug.dispatch")


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
    """A call on the server side.  :meth:`run` does it all and never raises."""

    quick = False

    def run(self) -> Message | None:
        """Decode, call, and encode the reply; None when nothing is to be sent (now)."""
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
        return self._failed(error)

    def execute(self) -> Message | None:
        """The call itself, in whatever thread it is to run."""
        plan = self.plan
        token = current_call.set(self)
        try:
            if plan.annotations and self.annotations:
                self._take_annotations()
            for step in plan.on_received:
                step(self)
            codec = plan.codecs.get(self.serializer_id)
            if codec is None:
                raise self._unknown_serializer()
            decoded = codec.loads_call(self.payload) if self.decode is None else self.decode(self)
            self.payload = None  # the arguments may be large; nobody needs their bytes any more
            self.object_id, self.method, self.args, self.kwargs = decoded
            result = invoke(self, *decoded) if self.invoke is None else self.invoke(self)
            if plan.results is not None:
                adapter = plan.results[type(result)]
                if adapter is not None:
                    result = adapter(self, result)
            if not self.wants_reply:
                return None
            for step in plan.before_reply:
                step(self)
            if self.substitute is None:
                return self._encode(codec, result, 0)
            try:
                return self._encode(codec, result, 0)
            except PyroError as why:
                return self._encode(codec, self.substitute(self, result, why), 0)
        except BaseException as exc:  # whatever user code raises, even SystemExit, is answered
            return self._failed(exc)
        finally:
            current_call.reset(token)

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

    def _encode(self, codec: Codec, value: Any, flags: int) -> Message:
        plan = self.plan
        ready = self.reply_payload
        payload: bytes = codec.dumps(value) if ready is None else ready
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
        self.reply_flags = 0
        self.reply_annotations = None  # what a method said about its result does not hold for a failure
        self.reply_payload = None
        refused = _refused_by_us(exc.__traceback__) and not isinstance(exc, StopIteration)  # which is no failure
        exc.__traceback__ = _of_program(exc.__traceback__)
        if refused and plan.switched_off and isinstance(exc, (AttributeError, SerializeError)):
            exc.args = (f"{exc}{plan.switched_off}", *exc.args[1:])
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
