"""How connections begin and end: validators, disconnects, housekeeping."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from pyroplug.api import ConnectionRefusedByPeer, Daemon, DaemonError, Proxy, expose
from pyroplug.testing.kernels import LOOPS, PATIENCE, Serve, Served
from pyroplug.testing.plugins import Recorder, make_plugin


@expose
class Thing:
    def echo(self, value: Any = None) -> Any:
        return value


class Guarded(Daemon):
    """Lets those in who know the word, and notes who goes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.gone: list[Any] = []
        self.seen: list[Any] = []
        self.change = threading.Condition()
        super().__init__(*args, **kwargs)

    def validateHandshake(self, conn: Any, data: Any) -> Any:
        self.seen.append((conn, data))
        if data == "boom":
            raise SystemExit("validator wants out")
        if data != {"password": "please"}:
            raise PermissionError("wrong password")
        return ["welcome", conn.objectId]

    def clientDisconnect(self, conn: Any) -> None:
        with self.change:
            self.gone.append(conn)
            self.change.notify_all()

    def wait_gone(self, count: int) -> bool:
        with self.change:
            return self.change.wait_for(lambda: len(self.gone) >= count, PATIENCE)


class Checking(Proxy):
    """A client that looks at the answer."""

    def _pyroValidateHandshake(self, response: Any) -> None:
        self.__dict__["_answer"] = response
        if self.__dict__.get("_strict"):
            raise ValueError("I do not like this server")


@pytest.mark.feature("F225")
def test_a_validator_lets_in_and_refuses(serve: Serve) -> None:
    served = serve(Thing(), daemon_class=Guarded)
    good, bad = served.proxy(cls=Checking), served.proxy()
    good._pyroHandshake = {"password": "please"}
    assert good.echo(1) == 1
    assert good.__dict__["_answer"] == ["welcome", "thing"]
    for value, text in (("hello", "wrong password"), ("boom", "validator wants out")):
        bad._pyroHandshake = value
        with pytest.raises(ConnectionRefusedByPeer, match=f"rejected: {text}") as caught:
            bad.echo(1)
        assert caught.value.reason == text
        if served.transport == "pair":
            break  # the user's socket was refused for good
    assert good.echo(2) == 2


def test_the_client_may_refuse_the_server(serve_at: Serve) -> None:
    served = serve_at(Thing(), daemon_class=Guarded)
    proxy = served.proxy(cls=Checking)
    proxy._pyroHandshake = {"password": "please"}
    proxy.__dict__["_strict"] = True
    with pytest.raises(ValueError, match="I do not like this server"):
        proxy.echo(1)
    assert proxy._pyroConnection is None
    assert served.daemon.wait_gone(1)  # type: ignore[attr-defined]
    proxy.__dict__["_strict"] = False
    assert proxy.echo(1) == 1


def test_all_validators_of_plugins_must_agree(serve_some: Serve) -> None:
    def refuse(hello: Any) -> None:
        if hello["handshake"] == "bad":
            raise PermissionError("the second one says no")

    plugins = [
        make_plugin("first", pyro_validate_handshake=lambda hello: {"extra": 1}),
        make_plugin("second", pyro_validate_handshake=refuse),
    ]
    served = serve_some(Thing(), extra_plugins=plugins)
    proxy = served.proxy()
    proxy._pyroHandshake = "bad"
    with pytest.raises(ConnectionRefusedByPeer, match="the second one says no"):
        proxy.echo(1)
    proxy._pyroHandshake = "good"
    assert proxy.echo(1) == 1


def test_an_unknown_object_is_refused_at_once(serve: Serve) -> None:
    served = serve(Thing())
    with pytest.raises(ConnectionRefusedByPeer, match="unknown object: nowhere"):
        served.proxy("nowhere").echo(1)
    proxy = served.proxy()
    with pytest.raises(DaemonError, match="unknown object: nowhere"):
        proxy._pyroInvoke("echo", [1], {}, objectId="nowhere")
    assert proxy.echo(1) == 1


def test_who_is_refused_is_not_told_what_objects_there_are(serve_some: Serve) -> None:
    served = serve_some(Thing(), daemon_class=Guarded)
    for object_id in ("thing", "nowhere"):
        with pytest.raises(ConnectionRefusedByPeer, match="wrong password") as caught:
            served.proxy(object_id).echo(1)
        assert "unknown" not in caught.value.reason


@pytest.mark.feature("F294")
@pytest.mark.usefixtures("quick_sweeps")
def test_client_disconnect_is_called_once_for_each_way_to_go(serve_at: Serve) -> None:
    recorder = Recorder()
    served = serve_at(Thing(), daemon_class=Guarded, extra_plugins=[recorder], COMMTIMEOUT=0.3, POLLTIMEOUT=0.02)
    daemon: Any = served.daemon
    released, killed, idle, kept = (served.proxy() for _ in range(4))
    for proxy in (released, killed, idle, kept):
        proxy._pyroHandshake = {"password": "please"}
        proxy.echo()
    by_client = {id(conn): conn for conn, _ in daemon.seen}
    assert len(by_client) == 4
    # released
    released._pyroRelease()
    assert daemon.wait_gone(1)
    # killed in the middle of a message
    assert killed._pyroConnection is not None
    killed._pyroConnection.stream.send(b"PYRO")
    killed._pyroConnection.close()
    assert daemon.wait_gone(2)
    # idle for longer than COMMTIMEOUT
    assert daemon.wait_gone(4)
    # and those that were there at shutdown
    kept._pyroReconnect()
    served.daemon.shutdown()
    assert len(daemon.gone) == 5
    assert len({id(conn) for conn in daemon.gone}) == 5
    assert recorder.names().count("pyro_closed") == 5
    assert recorder.names().count("pyro_opened") == 5


def test_a_disconnect_hook_that_fails_harms_nobody(serve_at: Serve, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    class Failing(Daemon):
        def clientDisconnect(self, conn: Any) -> None:
            told.set()
            raise RuntimeError("hook broke")

    served = serve_at(Thing(), daemon_class=Failing)
    with served.proxy() as proxy:
        proxy.echo()
    assert told.wait(PATIENCE)
    assert served.proxy().echo(1) == 1
    assert "clientDisconnect failed" in caplog.text


@pytest.mark.feature("F294")
def test_housekeeping(serve: Serve) -> None:
    class Tidy(Daemon):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.rounds = threading.Semaphore(0)
            super().__init__(*args, **kwargs)

        def housekeeping(self) -> None:
            self.rounds.release()
            raise RuntimeError("must not end anything")

    recorder = Recorder()
    served = serve(Thing(), daemon_class=Tidy, POLLTIMEOUT=0.01, extra_plugins=[recorder])
    for _ in range(5):
        assert served.daemon.rounds.acquire(timeout=PATIENCE)  # type: ignore[attr-defined]
    assert recorder.wait_for("pyro_housekeeping", 3)
    assert served.proxy().echo(1) == 1


def test_the_server_can_hang_up(serve_at: Serve) -> None:
    served = serve_at(Thing(), daemon_class=Guarded)
    daemon: Any = served.daemon
    proxy = served.proxy()
    proxy._pyroHandshake = {"password": "please"}
    proxy.echo()
    daemon.seen[0][0].close()
    assert daemon.wait_gone(1)
    with pytest.raises(Exception, match=r"closed|lost"):
        proxy.echo()
    assert proxy.echo(1) == 1
    assert len(daemon.gone) == 1


@pytest.mark.needs("callcontext")
def test_the_annotations_of_a_daemon_go_with_every_reply(serve_some: Serve) -> None:
    class Annotating(Daemon):
        def annotations(self) -> dict[str, bytes]:
            return {"XTRA": b"from the daemon"}

    served = serve_some(Thing(), daemon_class=Annotating)
    peer = served.peer()
    peer.hello()
    frame = peer.call("thing", "echo", 1)
    assert frame.annotations == {"XTRA": b"from the daemon"}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_has_gone_is_forgotten_without_the_garbage_collector(loop: str) -> None:
    known: list[weakref.ref[Any]] = []
    gone = threading.Event()

    class Watching(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            weakref.finalize(conn, gone.set)
            known.append(weakref.ref(conn))
            return "hello"

    with Served("tcp4", loop, daemon_class=Watching) as served:
        served.daemon.register(Thing(), "thing")
        proxy = served.proxy("thing")
        gc.disable()
        try:
            assert proxy.echo(1) == 1
            assert known[0]() is not None
            proxy._pyroRelease()
            assert gone.wait(PATIENCE)
        finally:
            gc.enable()


def test_the_same_welcome_is_encoded_once_and_another_one_anew(serve: Serve) -> None:
    words = iter(["hello", "hello", "other", "hello"])

    class Changing(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            return next(words)

    served = serve(Thing(), daemon_class=Changing)
    answers = []
    for _ in range(4):
        with served.proxy(cls=Checking) as proxy:
            assert proxy.echo(2) == 2
            answers.append(proxy._answer)
    assert answers == ["hello", "hello", "other", "hello"]
    assert len(served.daemon._endpoint._welcomes) == 1
