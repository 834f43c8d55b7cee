"""What every server loop must do: a test class that third parties run on theirs.

A complete test module for a server loop plugin ``mypackage.fibres``::

    from mypackage import fibres
    from pyroplug.testing.loops import ServerLoopConformance


    class TestFibres(ServerLoopConformance):
        plugin = fibres  # a module with pyro_servers
        name = "fibres"  # the value of SERVERTYPE
        concurrent = True  # calls of several clients run at the same time

pytest runs the inherited tests, each over the transports in :attr:`~ServerLoopConformance.transports`.
Every wait is bounded by :data:`~pyroplug.testing.kernels.PATIENCE`.
"""

from __future__ import annotations

import collections
import contextlib
import selectors
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from pyroplug.core.daemon import Daemon
from pyroplug.core.dispatch import LATER, Later
from pyroplug.core.errors import CommunicationError, ConnectionClosedError, PyroError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.interfaces import ServerLoopFactory
from pyroplug.core.members import expose
from pyroplug.core.plan import Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.wire import CONNECTFAIL, CONNECTOK, FLAG_EXCEPTION, RESULT

from .kernels import PATIENCE, Served, WirePeer
from .plugins import Recorder
from .transports import in_thread

__all__ = ["ServerLoopConformance", "Workpiece"]

_MOMENT = 0.05  # seconds: how long "nothing happens" is watched


class Promise:
    """The result of a call that the test answers."""

    def __init__(self) -> None:
        self.request: Any = None
        self.taken = threading.Event()
        self.at_once: Any = None
        """The answer, if it is to be there before the server loop knows that it comes later."""

    def take(self, request: Any) -> Later:
        """What a plugin does with such a result."""
        self.request = request
        if self.at_once is not None:
            assert request.finish(self.at_once)
        self.taken.set()
        return LATER

    def settled(self) -> Any:
        """The request, once the plugin has it."""
        assert self.taken.wait(PATIENCE)
        return self.request


class Promises:
    """A plugin that answers calls later whose result is a :class:`Promise`."""

    PLUGIN = PluginInfo("promises", "calls are answered when the test says so")

    def __init__(self, overlapping: int) -> None:
        """So many calls of any client may be in flight together, whatever it has agreed to."""
        self.steps = Steps(
            results=[(Promise, lambda call, promise: promise.take(call))],
            overlapping=overlapping,
        )

    @hookimpl
    def pyro_bind(self, connection: Any) -> Steps | None:
        """On the server."""
        return self.steps if connection.side == "server" else None


@expose
class Workpiece:
    """The object that the tests serve."""

    def __init__(self) -> None:
        self.promises: Mapping[str, Promise] = collections.defaultdict(Promise)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.inside = 0
        self.most = 0

    def echo(self, value: Any = None) -> Any:
        """The value."""
        return value

    def wait(self, value: Any = None) -> Any:
        """The value, once the gate is open."""
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.release()
        self.gate.wait(PATIENCE)
        with self.lock:
            self.inside -= 1
        return value

    def promise(self, name: str = "first") -> Any:
        """What the test makes of ``promises[name]``."""
        return self.promises[name]

    def make(self, size: int) -> str:
        """So many characters."""
        return "x" * size

    def leave(self) -> None:
        """What ends a careless worker."""
        raise SystemExit("the method wants out")

    def stop(self) -> str:
        """Shut the daemon down."""
        self._pyroDaemon.shutdown()  # type: ignore[attr-defined]
        return "stopping"


class ServerLoopConformance:
    """Inherit, and say which loop is meant."""

    plugin: Any = None
    """A module (or object) with ``pyro_servers``."""
    name = ""
    """The value of SERVERTYPE; without it the first name of the first loop of the plugin."""
    concurrent = True
    """Whether calls of several clients run at the same time; False: strictly one after the other."""
    transports: Sequence[str] = ("memory", "tcp4")
    """See :data:`pyroplug.testing.kernels.TRANSPORTS`."""
    settings: Mapping[str, Any] = {}
    """Settings for every test."""

    @pytest.fixture(autouse=True)
    def _prepare(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            yield

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test over each transport."""
        metafunc.parametrize("transport", self.transports)

    def factory(self) -> ServerLoopFactory:
        """The factory that is tested."""
        factories: list[ServerLoopFactory] = list(self.plugin.pyro_servers())
        wanted = self.name or factories[0].names[0]
        return next(factory for factory in factories if wanted in factory.names)

    def serve(
        self,
        transport: str,
        start: bool = True,
        daemon_class: type[Daemon] = Daemon,
        overlapping: int = 0,
        **settings: Any,
    ) -> Served:
        """A daemon with a :class:`Workpiece`; closed after the test."""
        self.recorder = Recorder()
        self.piece = Workpiece()
        served = Served(
            transport,
            self.name or self.factory().names[0],
            settings={**self.settings, **settings},
            extra_plugins=[self.plugin, self.recorder, Promises(overlapping)],
            daemon_class=daemon_class,
            start=start,
        )
        self._stack.enter_context(served)
        self._stack.callback(self.piece.gate.set)  # before the end: nobody waits for a call that was left
        served.publish(self.piece)
        return served

    def closed_connections(self) -> int:
        """How many connections the loop has reported as closed."""
        return self.recorder.names().count("pyro_closed")

    def still_serves(self, served: Served) -> None:
        """A new client is served."""
        with served.proxy() as proxy:
            assert proxy.echo("fine") == "fine"

    # ----------------------------------------------------------------------- calls
    def test_the_loop_that_was_asked_for_runs(self, transport: str) -> None:
        served = self.serve(transport)
        made = self.factory().create(served.daemon._endpoint, served.kernel.settings)
        self._stack.callback(made.close)
        assert type(made) is type(served.daemon.transportServer)

    def test_calls_of_several_clients(self, transport: str) -> None:
        served = self.serve(transport)
        proxies = [served.proxy() for _ in range(10)]
        for round_ in range(3):
            for number, proxy in enumerate(proxies):
                assert proxy.echo([round_, number]) == [round_, number]

    def test_requests_that_come_together_are_answered_in_order(self, transport: str) -> None:
        served = self.serve(transport)
        peer = served.peer()
        assert peer.hello().type == CONNECTOK
        peer.send(b"".join(peer.call_message("thing", "echo", number) for number in range(100)))
        frames = [peer.message() for _ in range(100)]
        assert [frame.seq for frame in frames] == list(range(1, 101))
        assert [peer.value(frame) for frame in frames] == list(range(100))

    def test_requests_behind_the_handshake(self, transport: str) -> None:
        """A client need not wait for CONNECTOK."""
        served = self.serve(transport)
        peer = served.peer()
        peer.send(peer.connect_message() + peer.call_message("thing", "echo", 5))
        assert peer.message().type == CONNECTOK
        assert peer.value(peer.message()) == 5

    def test_bytes_that_come_one_by_one(self, transport: str) -> None:
        served = self.serve(transport)
        peer = served.peer()
        for byte in peer.connect_message() + peer.call_message("thing", "echo", 7):
            peer.send(bytes([byte]))
        assert peer.message().type == CONNECTOK
        assert peer.value(peer.message()) == 7

    def test_large_messages_in_both_directions(self, transport: str) -> None:
        served = self.serve(transport)
        value = "abcdefgh" * 500_000
        assert served.proxy().echo(value) == value

    def test_whatever_a_method_raises_is_answered(self, transport: str) -> None:
        served = self.serve(transport)
        peer = served.peer()
        peer.hello()
        for _ in range(5):
            frame = peer.call("thing", "leave")
            assert (frame.type, frame.flags) == (RESULT, FLAG_EXCEPTION)
        assert peer.value(peer.call("thing", "echo", 1)) == 1

    # ----------------------------------------------------------------------- nobody blocks others
    def test_a_silent_client_blocks_nobody(self, transport: str) -> None:
        served = self.serve(transport)
        silent = [served.peer() for _ in range(5)]
        for _ in range(3):
            self.still_serves(served)
        for peer in silent:
            assert peer.hello().type == CONNECTOK
        self.still_serves(served)

    def test_a_half_sent_message_blocks_nobody(self, transport: str) -> None:
        served = self.serve(transport)
        peers = [served.peer() for _ in range(4)]
        halves = []
        for number, peer in enumerate(peers):
            peer.hello()
            message = peer.call_message("thing", "echo", "y" * 100_000)
            cut = [1, 39, 41, 90_000][number]
            peer.send(message[:cut])
            halves.append(message[cut:])
            self.still_serves(served)
        for peer, rest in zip(peers, halves, strict=True):
            peer.send(rest)
            assert peer.value(peer.message()) == "y" * 100_000

    def test_a_client_that_does_not_read_blocks_nobody(self, transport: str) -> None:
        """Its reply is larger than every buffer between."""
        served = self.serve(transport)
        lazy = served.peer()
        lazy.hello()
        lazy.send(lazy.call_message("thing", "make", 20_000_000) + lazy.call_message("thing", "echo", "next"))
        for _ in range(3):
            self.still_serves(served)
        assert len(lazy.value(lazy.message())) == 20_000_000
        assert lazy.value(lazy.message()) == "next"

    def test_calls_run_at_the_same_time_or_strictly_one_by_one(self, transport: str) -> None:
        served = self.serve(transport)
        proxies = [served.proxy() for _ in range(4)]
        for proxy in proxies:
            proxy.echo()
        calls = [in_thread(proxy.wait, number) for number, proxy in enumerate(proxies)]
        expected = len(proxies) if self.concurrent else 1
        for _ in range(expected):
            assert self.piece.entered.acquire(timeout=PATIENCE)
        if self.concurrent:
            self.still_serves(served)
        else:
            assert not self.piece.entered.acquire(timeout=_MOMENT)
        self.piece.gate.set()
        assert [call.result(PATIENCE) for call in calls] == list(range(len(proxies)))
        assert self.piece.most == expected

    # ----------------------------------------------------------------------- answered later
    def test_a_call_that_is_answered_later(self, transport: str) -> None:
        """It holds up its own client, whose calls may not overlap, and nobody else."""
        served = self.serve(transport)
        peer = served.peer()
        peer.hello()
        peer.send(peer.call_message("thing", "promise") + peer.call_message("thing", "wait", "next"))
        request = self.piece.promises["first"].settled()
        for _ in range(3):
            self.still_serves(served)
        assert not self.piece.entered.acquire(blocking=False)
        self.piece.gate.set()
        assert in_thread(request.finish, "done").result(PATIENCE)
        first, second = peer.message(), peer.message()
        assert (first.seq, peer.value(first)) == (1, "done")
        assert (second.seq, peer.value(second)) == (2, "next")
        assert peer.value(peer.call("thing", "echo", 3)) == 3

    def test_a_call_that_was_answered_before_the_loop_knew(self, transport: str) -> None:
        served = self.serve(transport)
        self.piece.promises["first"].at_once = "already"
        peer = served.peer()
        peer.hello()
        peer.send(b"".join(peer.call_message("thing", "promise") for _ in range(3)))
        assert [peer.value(peer.message()) for _ in range(3)] == ["already"] * 3

    def test_only_the_first_answer_counts(self, transport: str) -> None:
        served = self.serve(transport)
        proxy = served.proxy()
        for answer in ("fail", "finish"):
            call = in_thread(proxy.promise, answer)
            request = self.piece.promises[answer].settled()
            assert getattr(request, answer)(ValueError(answer))
            assert not request.finish("too late")
            assert not request.fail(KeyError("too late"))
            with pytest.raises(ValueError, match=answer):
                raise call.exception(PATIENCE) or call.result()
        assert proxy.echo("in step") == "in step"

    def test_an_answer_that_cannot_travel(self, transport: str) -> None:
        served = self.serve(transport)
        proxy = served.proxy()
        call = in_thread(proxy.promise)
        self.piece.promises["first"].settled().finish(threading.Lock())
        assert isinstance(call.exception(PATIENCE), PyroError)
        assert proxy.echo("in step") == "in step"

    def test_many_calls_answered_later_need_no_thread(self, transport: str) -> None:
        served = self.serve(transport, THREADPOOL_SIZE=2, THREADPOOL_SIZE_MIN=1)
        peers = [served.peer() for _ in range(20)]
        for number, peer in enumerate(peers):
            peer.hello()
            peer.send(peer.call_message("thing", "promise", str(number)))
        requests = [self.piece.promises[str(number)].settled() for number in range(20)]
        self.still_serves(served)
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("pyroplug-")]) <= 5
        for number, request in reversed(list(enumerate(requests))):
            assert request.finish(number)
            assert peers[number].value(peers[number].message()) == number

    def test_the_client_of_a_call_that_is_answered_later_goes(self, transport: str) -> None:
        served = self.serve(transport)
        peer = served.peer()
        peer.hello()
        peer.send(peer.call_message("thing", "promise"))
        request = self.piece.promises["first"].settled()
        peer.close()
        self.still_serves(served)
        request.finish("for nobody")
        assert self.recorder.wait_for("pyro_closed", 2)
        self.still_serves(served)

    def test_shutdown_waits_for_what_is_answered_later(self, transport: str) -> None:
        served = self.serve(transport)
        call = in_thread(served.proxy().promise)
        request = self.piece.promises["first"].settled()
        ending = in_thread(served.daemon.shutdown)
        time.sleep(_MOMENT)
        assert not ending.done()
        request.finish("done")
        ending.result(PATIENCE)
        assert call.result(PATIENCE) == "done"

    # ----------------------------------------------------------------------- many calls of one client in flight
    def overlapping_peer(self, transport: str, limit: int = 100, **settings: Any) -> tuple[Served, WirePeer]:
        """A daemon, and a client whose calls may overlap."""
        served = self.serve(transport, overlapping=limit, **settings)
        peer = served.peer()
        peer.hello()
        return served, peer

    def send_calls(self, peer: WirePeer, method: str, values: Iterable[Any]) -> dict[int, Any]:
        """Call with each of the values, all at once; the values by number."""
        sent = {}
        messages = []
        for value in values:
            messages.append(peer.call_message("thing", method, value))
            sent[peer.seq] = value
        peer.send(b"".join(messages))
        return sent

    def replies(self, peer: WirePeer, count: int) -> dict[int, Any]:
        """So many replies, by number."""
        return {frame.seq: peer.value(frame) for frame in (peer.message() for _ in range(count))}

    def test_calls_of_one_client_run_at_the_same_time_or_in_order(self, transport: str) -> None:
        _, peer = self.overlapping_peer(transport)
        sent = self.send_calls(peer, "wait", range(12))
        for _ in range(12 if self.concurrent else 1):
            assert self.piece.entered.acquire(timeout=PATIENCE)
        if self.concurrent:
            assert peer.value(peer.call("thing", "echo", "quick")) == "quick"  # it passes the others
        else:
            assert not self.piece.entered.acquire(timeout=_MOMENT)
        self.piece.gate.set()
        frames = [peer.message() for _ in range(12)]
        assert {frame.seq: peer.value(frame) for frame in frames} == sent
        if not self.concurrent:
            assert [frame.seq for frame in frames] == sorted(sent)
        assert peer.value(peer.call("thing", "echo", "again")) == "again"

    def test_replies_that_come_later_come_in_any_order(self, transport: str) -> None:
        """Under every loop: nothing of them runs."""
        _, peer = self.overlapping_peer(transport)
        self.send_calls(peer, "promise", "abc")
        requests = [self.piece.promises[name].settled() for name in "abc"]
        assert peer.value(peer.call("thing", "echo", "meanwhile")) == "meanwhile"
        for request in reversed(requests):
            in_thread(request.finish, request.seq).result(PATIENCE)
            frame = peer.message()
            assert (frame.seq, peer.value(frame)) == (request.seq, request.seq)
        assert peer.value(peer.call("thing", "echo", "again")) == "again"

    def test_what_is_in_flight_is_known_and_can_be_dropped(self, transport: str) -> None:
        _, peer = self.overlapping_peer(transport)
        (opened,) = self.recorder.arguments("pyro_opened")
        connection = opened["connection"]
        self.send_calls(peer, "promise", "ab")
        first, second = (self.piece.promises[name].settled() for name in "ab")
        assert peer.value(peer.call("thing", "echo", 1)) == 1
        assert connection.in_flight == {1: first, 2: second}
        del connection.in_flight[1]
        first.finish("for nobody")
        second.finish("for the client")
        frame = peer.message()
        assert (frame.seq, peer.value(frame)) == (2, "for the client")
        assert peer.value(peer.call("thing", "echo", 2)) == 2
        assert not connection.in_flight

    def test_a_client_with_too_much_in_flight_is_not_read(self, transport: str) -> None:
        served, peer = self.overlapping_peer(transport, limit=3)
        names = [str(number) for number in range(10)]
        self.send_calls(peer, "promise", names)
        for number, name in enumerate(names):
            request = self.piece.promises[name].settled()
            in_advance = [later for later in names[number + 3 :] if self.piece.promises[later].request is not None]
            assert in_advance == []
            assert request.finish(name)
            assert peer.value(peer.message()) == name
            self.still_serves(served)
        assert peer.value(peer.call("thing", "echo", "again")) == "again"

    def test_a_client_that_reads_none_of_its_replies(self, transport: str) -> None:
        """It is not read any more when what waits for it is as large as a message may be."""
        served, lazy = self.overlapping_peer(transport, MAX_MESSAGE_SIZE=4_000_000)
        sent = self.send_calls(lazy, "make", [3_000_000] * 8)
        for _ in range(3):
            self.still_serves(served)
        assert {number: len(value) for number, value in self.replies(lazy, 8).items()} == sent
        assert lazy.value(lazy.call("thing", "echo", "again")) == "again"

    def test_a_client_goes_while_several_of_its_calls_are_in_flight(self, transport: str) -> None:
        served, peer = self.overlapping_peer(transport)
        self.send_calls(peer, "promise", "ab")
        requests = [self.piece.promises[name].settled() for name in "ab"]
        self.send_calls(peer, "wait", range(3))
        assert self.piece.entered.acquire(timeout=PATIENCE)
        peer.close()
        for request in requests:
            request.finish("for nobody")
        self.piece.gate.set()
        assert self.recorder.wait_for("pyro_closed")
        self.still_serves(served)
        assert self.recorder.wait_for("pyro_closed", 2)
        assert self.closed_connections() == 2

    def test_garbage_ends_what_is_in_flight(self, transport: str) -> None:
        served, peer = self.overlapping_peer(transport)
        self.send_calls(peer, "promise", "a")
        request = self.piece.promises["a"].settled()
        peer.send(b"\xff" * 100)
        assert peer.ended()
        request.finish("for nobody")
        self.still_serves(served)

    def test_hanging_up_waits_for_what_is_in_flight(self, transport: str) -> None:
        _, peer = self.overlapping_peer(transport)
        (opened,) = self.recorder.arguments("pyro_opened")
        self.send_calls(peer, "promise", "ab")
        first, second = (self.piece.promises[name].settled() for name in "ab")
        opened["connection"].close()
        first.finish(1)
        second.finish(2)
        assert self.replies(peer, 2) == {1: 1, 2: 2}
        assert peer.ended()

    def test_shutdown_waits_for_all_that_is_in_flight(self, transport: str) -> None:
        served, peer = self.overlapping_peer(transport)
        self.send_calls(peer, "promise", "ab")
        first, second = (self.piece.promises[name].settled() for name in "ab")
        ending = in_thread(served.daemon.shutdown)
        first.finish("a")
        assert self.replies(peer, 1) == {1: "a"}
        assert not ending.done()
        second.finish("b")
        assert self.replies(peer, 1) == {2: "b"}
        ending.result(PATIENCE)
        assert peer.ended()

    # ----------------------------------------------------------------------- deadlines
    def test_a_handshake_that_is_not_finished_in_time_is_refused(self, transport: str) -> None:
        served = self.serve(transport, HANDSHAKE_TIMEOUT=0.1)
        silent, halting = served.peer(), served.peer()
        halting.send(halting.connect_message()[:20])
        for peer in (silent, halting):
            frame = peer.message()
            assert frame.type == CONNECTFAIL
            assert b"timeout" in bytes(frame.payload)
            assert peer.ended()
        self.still_serves(served)

    def test_a_handshake_that_was_finished_has_no_deadline(self, transport: str) -> None:
        served = self.serve(transport, HANDSHAKE_TIMEOUT=0.1)
        peer, late = served.peer(), served.peer()
        peer.hello()
        assert late.message().type == CONNECTFAIL  # so the time is over
        assert peer.value(peer.call("thing", "echo", 1)) == 1

    def test_an_idle_client_is_let_go(self, transport: str) -> None:
        served = self.serve(transport, COMMTIMEOUT=0.1, POLLTIMEOUT=0.02)
        peer = served.peer()
        peer.hello()
        assert peer.ended()
        assert self.recorder.wait_for("pyro_closed")

    def test_a_client_that_stalls_inside_a_message_is_let_go(self, transport: str) -> None:
        served = self.serve(transport, STALL_TIMEOUT=0.1, POLLTIMEOUT=0.02)
        idle, stalled = served.peer(), served.peer()
        for peer in (idle, stalled):
            peer.hello()
        stalled.send(stalled.call_message("thing", "echo", 1)[:50])
        assert stalled.ended()
        assert idle.value(idle.call("thing", "echo", 2)) == 2

    # ----------------------------------------------------------------------- clients go
    def test_a_client_that_goes_is_reported_once(self, transport: str) -> None:
        """If it was ever accepted."""
        served = self.serve(transport)
        polite, rude, early = served.peer(), served.peer(), served.peer()
        for peer in (polite, rude):
            peer.hello()
        rude.send(rude.call_message("thing", "echo", 1)[:45])
        for peer in (early, polite, rude):
            peer.close()
        assert self.recorder.wait_for("pyro_closed", 2)
        self.still_serves(served)
        assert self.recorder.wait_for("pyro_closed", 3)
        served.daemon.shutdown()
        assert self.closed_connections() == 3

    def test_a_client_that_goes_while_its_call_runs(self, transport: str) -> None:
        served = self.serve(transport)
        peer = served.peer()
        peer.hello()
        peer.send(peer.call_message("thing", "wait"))
        assert self.piece.entered.acquire(timeout=PATIENCE)
        peer.close()
        self.piece.gate.set()
        assert self.recorder.wait_for("pyro_closed")
        self.still_serves(served)
        assert self.recorder.wait_for("pyro_closed", 2)
        assert self.closed_connections() == 2

    def test_the_daemon_hangs_up_from_another_thread(self, transport: str) -> None:
        served = self.serve(transport)
        peer = served.peer()
        peer.hello()
        (opened,) = self.recorder.arguments("pyro_opened")
        in_thread(opened["connection"].close).result(PATIENCE)
        assert peer.ended()
        assert self.recorder.wait_for("pyro_closed")
        self.still_serves(served)

    def test_garbage_costs_only_the_one_who_sent_it(self, transport: str) -> None:
        served = self.serve(transport)
        good, early, late = served.peer(), served.peer(), served.peer()
        good.hello()
        late.hello()
        early.send(b"GET / HTTP/1.1\r\n\r\n")
        assert early.message().type == CONNECTFAIL
        assert early.ended()
        late.send(b"\xff" * 100)
        assert late.ended()
        assert good.value(good.call("thing", "echo", 1)) == 1

    def test_too_many_clients(self, transport: str) -> None:
        served = self.serve(transport, MAX_CONNECTIONS=2)
        first, second = served.proxy(), served.proxy()
        assert [first.echo(1), second.echo(2)] == [1, 2]
        with pytest.raises(CommunicationError, match="too many connections"):
            served.proxy().echo(3)
        first._pyroRelease()
        assert self.recorder.wait_for("pyro_closed")
        self.still_serves(served)
        assert second.echo(2) == 2

    def test_a_connection_that_cannot_be_set_up(self, transport: str) -> None:
        class Odd(Daemon):
            fail = False

            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                make = self._endpoint.connection

                def connection(*args: Any, **kwargs: Any) -> Any:
                    if self.fail:
                        raise RuntimeError("no connection for this one")
                    return make(*args, **kwargs)

                self._endpoint.connection = connection  # type: ignore[method-assign]

        served = self.serve(transport, daemon_class=Odd)
        served.daemon.fail = True  # type: ignore[attr-defined]
        assert served.peer().ended()
        served.daemon.fail = False  # type: ignore[attr-defined]
        self.still_serves(served)

    # ----------------------------------------------------------------------- running and ending
    def test_the_condition_ends_the_loop_and_it_can_run_again(self, transport: str) -> None:
        served = self.serve(transport, start=False, POLLTIMEOUT=0.02)
        peer: WirePeer | None = None
        for number in range(3):
            go = threading.Event()
            running = in_thread(served.daemon.requestLoop, lambda go=go: not go.is_set())
            if peer is None:
                peer = served.peer()
                peer.hello()
            assert peer.value(peer.call("thing", "echo", number)) == number
            go.set()
            running.result(PATIENCE)

    def test_shutdown_ends_everything(self, transport: str) -> None:
        before = set(threading.enumerate())
        served = self.serve(transport)
        proxy = served.proxy()
        proxy.echo()
        served.daemon.shutdown()
        assert served.join()
        for _ in range(2):
            with pytest.raises(CommunicationError):
                proxy.echo()
        assert [thread for thread in threading.enumerate() if thread not in before] == []
        assert self.closed_connections() == 1

    def test_shutdown_inside_a_call(self, transport: str) -> None:
        served = self.serve(transport)
        proxy = served.proxy()
        assert proxy.stop() == "stopping"
        assert served.join()
        with pytest.raises(ConnectionClosedError):
            proxy.echo()

    def test_shutdown_waits_for_what_runs(self, transport: str) -> None:
        served = self.serve(transport)
        call = in_thread(served.proxy().wait, "done")
        assert self.piece.entered.acquire(timeout=PATIENCE)
        ending = in_thread(served.daemon.shutdown)
        time.sleep(_MOMENT)
        assert not ending.done()
        self.piece.gate.set()
        ending.result(PATIENCE)
        assert call.result(PATIENCE) == "done"

    def test_shutdown_before_the_loop_runs(self, transport: str) -> None:
        served = self.serve(transport, start=False)
        served.daemon.shutdown()
        with pytest.raises(PyroError):
            served.daemon.requestLoop()

    def test_closing_a_loop_that_another_thread_runs(self, transport: str) -> None:
        served = self.serve(transport)
        proxy = served.proxy()
        proxy.echo()
        served.daemon.close()
        assert served.join()
        with pytest.raises(CommunicationError):
            proxy.echo()

    def test_housekeeping(self, transport: str) -> None:
        self.serve(transport, POLLTIMEOUT=0.02)
        assert self.recorder.wait_for("pyro_housekeeping", 3)

    # ----------------------------------------------------------------------- other people's loops
    def test_a_foreign_event_loop(self, transport: str) -> None:
        served = self.serve(transport, start=False)
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                with selectors.DefaultSelector() as selector:
                    for sock in served.daemon.sockets:
                        selector.register(sock, selectors.EVENT_READ)
                    ready = [key.fileobj for key, _ in selector.select(0.01)]
                served.daemon.events(ready)

        running = in_thread(loop)
        first, second = served.proxy(), served.proxy()
        for number in range(3):
            assert [first.echo(number), second.echo(number)] == [number, number]
        stop.set()
        running.result(PATIENCE)

    def test_combine_works_or_says_that_it_cannot(self, transport: str) -> None:
        served = self.serve(transport, start=False)
        with Daemon(memory=True, kernel=served.kernel) as other:
            other.register(Workpiece(), "other")
            try:
                served.daemon.combine(other)
            except TypeError:
                return  # anything else is no answer
            served.start()
            with other.proxyFor("other") as proxy:
                assert proxy.echo(1) == 1
            self.still_serves(served)
            served.daemon.shutdown()
