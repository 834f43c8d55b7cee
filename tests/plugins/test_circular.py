"""Circular calls: they complete where they can, and end with an error that names them where they cannot."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from pyroplug.api import (
    URI,
    BatchProxy,
    CircularCallError,
    DaemonError,
    Kernel,
    Proxy,
    TimeoutError,
    asyncproxy,
    current_context,
    expose,
    oneway,
)
from pyroplug.core.errors import RemoteProtocolError
from pyroplug.core.wire import CONNECT, EXTENSIONS, FLAG_EXCEPTION, encode
from pyroplug.plugins.circular import WAITING, Hop, packed, unpacked
from pyroplug.testing.kernels import PATIENCE, Served, make_kernel

pytestmark = [pytest.mark.needs("circular"), pytest.mark.timeout(60)]


@expose
class Node:
    """Calls the next one of a ring, over one connection for all calls or a new one for each."""

    def __init__(self, keeps: bool = False) -> None:
        self.keeps = keeps
        self.next: Callable[[], Proxy]
        self._kept: dict[int, Proxy] = {}
        self.told = threading.Event()
        self.seen: list[Any] = []

    def _proxy(self) -> Proxy:
        if not self.keeps:
            return self.next()
        return self._kept.setdefault(threading.get_ident(), self.next())

    def around(self, hops: int) -> int:
        self.seen.append((dict(current_context.annotations), dict(current_context.response_annotations)))
        if not hops:
            return 0
        return 1 + int(self._proxy().around(hops - 1))

    def say_hello(self) -> None:
        """Connect, so that the next call finds a connection."""
        self._proxy()._pyroBind()

    def ask(self, method: str, *args: Any) -> Any:
        return getattr(self._proxy(), method)(*args)

    def ask_all(self) -> list[Any]:
        batch = BatchProxy(self._proxy())
        batch.around(1)
        return list(batch())

    def call_itself_later(self) -> None:
        """Nobody waits for this call before the method has returned."""
        self.future = asyncproxy(self._proxy()).ask("around", 0)  # connects in the background too

    def later(self) -> Any:
        return self.future.result(PATIENCE)

    @oneway
    def tell(self, hops: int = 0) -> None:
        if hops:
            self._proxy().tell(hops - 1)
        self.told.set()


Ring = list[tuple[Served, Node]]


@contextlib.contextmanager
def a_ring(
    loops: Sequence[str], transport: str = "tcp4", keeps: bool = False, off: Sequence[int] = (), **options: Any
) -> Iterator[Ring]:
    """Daemons with these server loops, each calling the next and the last the first; ``off``: without the plugin."""
    with contextlib.ExitStack() as stack:
        ring: Ring = []
        for number, loop in enumerate(loops):
            environ = {"PYRO_DISABLE_PLUGINS": "circular"} if number in off else {}
            served = stack.enter_context(Served(transport, loop, environ=environ, **options))
            ring.append((served, Node(keeps)))
        for number, (served, node) in enumerate(ring):
            following = ring[(number + 1) % len(ring)][0]
            # whoever calls uses its own kernel, as a program of its own would
            node.next = functools.partial(_kept_until_the_end, stack, following.daemon.uriFor("thing"), served.kernel)
            served.publish(node)
        yield ring


def _kept_until_the_end(stack: contextlib.ExitStack, uri: URI, kernel: Kernel) -> Proxy:
    proxy = Proxy(uri, kernel=kernel)
    stack.callback(proxy._pyroRelease)
    return proxy


# --------------------------------------------------------------------------- they complete
@pytest.mark.feature("F105", "F106")
@pytest.mark.parametrize("transport", ["tcp4", "memory"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_calls_that_run_at_the_same_time_go_around_as_often_as_one_likes(size: int, transport: str) -> None:
    with a_ring(["thread"] * size, transport) as ring:
        assert ring[0][0].proxy().around(3 * size) == 3 * size


@pytest.mark.feature("F105", "F106")
def test_a_circle_of_those_that_do_not_wait_completes_beside_one_that_does() -> None:
    """A waits, and B, C and D call each other in a circle meanwhile."""
    with a_ring(["multiplex", "thread", "thread", "thread"]) as ring:
        last, first = ring[3][1], ring[1][0]
        last.next = lambda: first.proxy()
        assert ring[0][0].proxy().around(7) == 7


# --------------------------------------------------------------------------- they end with an error
LOOPS = ["multiplex", "multiplex multiplex", "multiplex thread", "multiplex thread thread",
         "multiplex multiplex multiplex", "multiplex thread multiplex"]  # fmt: skip


@pytest.mark.feature("F105", "F106")
@pytest.mark.parametrize("transport", ["tcp4", "memory"])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "new"])
@pytest.mark.parametrize("loops", LOOPS)
def test_a_call_that_would_wait_for_itself_names_the_circle(loops: str, keeps: bool, transport: str) -> None:
    """Scenario 17, whether or not there is a connection already; COMMTIMEOUT is not set."""
    with a_ring(loops.split(), transport, keeps) as ring:
        if keeps:
            for served, node in ring[1:] if len(ring) > 1 else ():
                with served.proxy() as other:
                    other.say_hello()
                assert node.seen == []
        proxy = ring[0][0].proxy()
        with pytest.raises(CircularCallError, match=r"circular call: .* runs one call at a time") as caught:
            proxy.around(len(ring))
        locations = [served.daemon.locationStr for served, _ in ring]
        assert list(caught.value.chain) == [*locations, locations[0]]
        assert " -> ".join(caught.value.chain) in str(caught.value)
        assert "SERVERTYPE=thread" in str(caught.value)
        assert isinstance(caught.value, DaemonError)
        assert proxy.around(0) == 0  # and nobody is the worse for it
        assert proxy.around(len(ring) - 1) == len(ring) - 1


@pytest.mark.feature("F106")
def test_the_circle_begins_where_somebody_waits_not_where_the_calls_began() -> None:
    """A calls B, B calls C, C calls B: B waits for itself, A has no part in it."""
    with a_ring(["thread", "multiplex", "thread"]) as ring:
        ring[2][1].next = lambda: ring[1][0].proxy()
        with pytest.raises(CircularCallError) as caught:
            ring[0][0].proxy().around(3)
        middle, last = (ring[number][0].daemon.locationStr for number in (1, 2))
        assert caught.value.chain == (middle, last, middle)


@pytest.mark.feature("F105")
def test_a_kept_connection_to_itself() -> None:
    with a_ring(["multiplex"], keeps=True) as ring:
        served, node = ring[0]
        kept = node._kept
        thread = served._thread
        assert thread is not None
        assert thread.ident is not None
        kept[thread.ident] = served.proxy()
        kept[thread.ident]._pyroBind()
        with pytest.raises(CircularCallError, match=r"thing\.around at"):
            served.proxy().around(1)


@pytest.mark.feature("F106")
def test_a_batch_is_a_call() -> None:
    with a_ring(["multiplex", "thread"]) as ring, pytest.raises(CircularCallError):
        ring[0][0].proxy().ask_all()


@pytest.mark.feature("F106", "F293")
def test_daemons_that_share_a_loop_wait_for_each_other() -> None:
    with a_shared_loop() as (first, second):
        with pytest.raises(CircularCallError) as caught:
            first.proxy().around(1)
        one, two = first.daemon.locationStr, second.daemon.locationStr
        assert caught.value.chain == (two, one, two)
        with pytest.raises(CircularCallError):
            second.proxy().around(1)


@contextlib.contextmanager
def a_shared_loop() -> Iterator[tuple[Served, Served]]:
    """Two daemons in the loop of the first."""
    first, second = (Served("tcp4", "multiplex", start=False) for _ in range(2))
    with second, first:
        for served, other in ((first, second), (second, first)):
            node = Node()
            node.next = other.proxy
            served.publish(node)
        first.daemon.combine(second.daemon)
        first.start()
        yield first, second


def test_other_names_of_the_same_place_are_known() -> None:
    with a_ring(["multiplex", "thread"], nathost="somewhere.example", natport=4) as ring:
        port = ring[0][0].daemon.locationStr.rpartition(":")[2]
        back = Proxy(f"PYRO:thing@localhost:{port}", kernel=ring[1][0].kernel)
        there = Proxy(f"PYRO:thing@{ring[1][0].daemon.locationStr}", kernel=ring[0][0].kernel)
        ring[1][1].next, ring[0][1].next = lambda: back, lambda: there
        with Proxy(f"PYRO:thing@127.0.0.1:{port}") as proxy, back, there:
            proxy._pyroBind()
            with pytest.raises(CircularCallError, match=r"somewhere\.example"):
                proxy.around(2)


# --------------------------------------------------------------------------- nobody waits, or nobody knows
@pytest.mark.feature("F106", "F089")
def test_oneway_calls_wait_for_nothing() -> None:
    with a_ring(["multiplex", "multiplex"], keeps=True) as ring:
        for served, _ in ring:
            with served.proxy() as proxy:
                proxy._pyroBind()
        ring[0][0].proxy().tell(1)
        assert ring[0][1].told.wait(PATIENCE)
        assert ring[1][1].told.wait(PATIENCE)


@pytest.mark.feature("F106")
def test_a_future_that_nobody_waits_for_is_no_part_of_the_chain() -> None:
    """A calls B; B has A called in the background and returns, so that A is free for it."""
    with a_ring(["multiplex", "thread"]) as ring:
        node = ring[1][1]
        assert ring[0][0].proxy().ask("call_itself_later") is None
        assert node.later() == 0


@pytest.mark.feature("F105", "F106")
@pytest.mark.parametrize("off", [0, 1])
def test_behind_a_peer_without_the_plugin_a_time_limit_ends_it(off: int) -> None:
    with a_ring(["multiplex", "thread"], off=[off], settings={"COMMTIMEOUT": 0.3}) as ring:
        proxy = ring[0][0].proxy()
        with pytest.raises(TimeoutError):
            proxy.around(2)


def test_methods_do_not_see_what_is_told() -> None:
    with a_ring(["multiplex", "thread", "thread"]) as ring:
        assert ring[0][0].proxy().around(2) == 2
        assert [node.seen for _, node in ring] == [[({}, {})]] * 3


@pytest.mark.needs("annotations", "callcontext")
def test_programs_cannot_tell_it() -> None:
    with a_ring(["thread"]) as ring:
        proxy = ring[0][0].proxy()
        current_context.annotations = {WAITING: b"x"}
        try:
            with pytest.raises(Exception, match="annotation identifier in use by the protocol: 'WAIT'"):
                proxy.around(0)
        finally:
            current_context.annotations = {}


# --------------------------------------------------------------------------- what is told
CHAINS = [
    (Hop("", "here", ("localhost:4",)),),
    (Hop("ab", "here", ("localhost:4", "nät:5")), Hop("", "there", ("./u:/tmp/a b",))),
]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_arrives_as_it_was(chain: tuple[Hop, ...]) -> None:
    assert unpacked(packed(chain)) == chain


@pytest.mark.parametrize("data", [b"", b"\0", b"a\0b", b"\xff\0b\0c", b"a\0b\0\0\0c", b"a\0b\0" + b"x" * 20_000])
def test_what_is_no_chain_fails_the_call(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="invalid annotation WAIT"):
        unpacked(data)


def test_a_peer_that_tells_nonsense_hears_of_it() -> None:
    with Served() as served:
        served.publish(Node())
        peer = served.peer()
        payload = served.kernel.codecs()["serpent"].dumps({"handshake": "hello", "object": "thing"})
        peer.send(encode(CONNECT, 1, 0, 0, payload, {EXTENSIONS: b"circular"}))
        peer.message()
        frame = peer.call("thing", "around", 0, annotations={WAITING: b"nonsense"})
        assert frame.flags & FLAG_EXCEPTION
        assert peer.value(peer.call("thing", "around", 0)) == 0


@pytest.mark.parametrize(
    ("location", "other_place", "known"),
    [
        ("localhost:4", False, True),
        ("localhost:4", True, False),
        ("127.0.0.1:4", True, False),
        ("[::1]:4", True, False),
        ("192.168.1.2:4", True, False),
        ("8.8.8.8:4", True, True),
        ("server.example:4", True, True),
        ("./u:/tmp/s", True, False),
        ("./u:/tmp/s", False, True),
    ],
)
def test_a_location_counts_where_it_surely_means_the_same(location: str, other_place: bool, known: bool) -> None:
    assert Hop("id", "here", (location,)).is_at("there" if other_place else "here", location) is known
    assert not Hop("id", "here", (location,)).is_at("here", location + "4")


# --------------------------------------------------------------------------- as users have it
PROGRAM = """
import sys
from pyroplug.api import Daemon, Proxy, expose

@expose
class Back:
    def call(self, proxy):
        with proxy:
            return proxy.around(0)

with Daemon() as daemon:
    print(daemon.register(Back(), "back"), flush=True)
    daemon.requestLoop()
"""


@pytest.mark.feature("F106", "F101")
def test_a_server_of_its_own_calls_back_a_client_that_waits() -> None:
    """A client serves a callback object in its only thread, and calls from inside of a call."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            uri = process.stdout.readline().strip()
            with a_ring(["multiplex"]) as ring:
                served, node = ring[0]
                back = Proxy(uri, kernel=served.kernel)
                node.next = lambda: back
                with back:
                    assert back.call(served.daemon.proxyFor("thing")) == 0  # from outside of any call
                    with pytest.raises(CircularCallError) as caught:
                        served.proxy().ask("call", served.daemon.proxyFor("thing"))
                    assert "thing" in str(caught.value)
        finally:
            process.kill()


def test_old_ends_see_a_daemon_error() -> None:
    """The class is new: others get the nearest one that they know."""
    form = make_kernel().types.exception_to_dict(CircularCallError("circular", ["a", "b", "a"]))
    assert form["__class__"] == "Pyro5.errors.DaemonError"
    assert make_kernel().types.from_dict(form).chain == ("a", "b", "a")
