"""Annotations: binary extras with requests and replies."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pyroplug.api import Daemon, PluginError, ProtocolError, Proxy, current_context, expose, oneway
from pyroplug.core.wire import RESULT
from pyroplug.testing.kernels import PATIENCE, Serve, Served, make_kernel

pytestmark = [pytest.mark.usefixtures("clean_context"), pytest.mark.needs("annotations"), pytest.mark.feature("F235")]


@expose
class Thing:
    def __init__(self) -> None:
        self.seen = queue.Queue[dict[str, bytes]]()

    def swap(self) -> dict[str, str]:
        """What came, as texts; the same goes back in small letters."""
        came = {key: bytes(value).decode() for key, value in current_context.annotations.items()}
        current_context.response_annotations = {key: value.lower().encode() for key, value in came.items()}
        return came

    def add(self, key: str) -> None:
        current_context.response_annotations[key] = b"added"

    def answer(self, annotations: dict[Any, Any]) -> None:
        current_context.response_annotations = annotations

    def answer_text(self) -> None:
        current_context.response_annotations["TEXT"] = "no bytes"

    def fail(self) -> None:
        current_context.response_annotations = {"RESP": b"never sent"}
        raise ValueError("failed")

    @oneway
    def note(self) -> None:
        self.seen.put(dict(current_context.annotations))

    def size(self) -> int:
        return sum(map(len, current_context.annotations.values()))

    @property
    def came(self) -> list[str]:
        return list(current_context.annotations)

    def items(self) -> Iterator[int]:
        for number in range(3):
            current_context.response_annotations = {"DATA": bytes([number]) * 3}
            yield number


def test_both_ways(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    current_context.annotations = {"ABCD": b"HELLO", "E!-F": b""}
    assert proxy.swap() == {"ABCD": "HELLO", "E!-F": ""}
    assert current_context.response_annotations == {"ABCD": b"hello", "E!-F": b""}
    current_context.annotations = {}
    assert proxy.swap() == {}
    assert current_context.response_annotations == {}


@pytest.mark.needs("metadata")
def test_they_go_with_every_call_until_taken_away(serve: Serve) -> None:
    thing = Thing()
    proxy = serve(thing).proxy()
    current_context.annotations["ABCD"] = b"1"  # type: ignore[index]
    proxy.note()
    assert proxy.came == ["ABCD"]
    del current_context.annotations["ABCD"]  # type: ignore[attr-defined]
    assert proxy.came == []
    assert thing.seen.get(timeout=PATIENCE) == {"ABCD": b"1"}


def test_other_threads_do_not_send_them(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    current_context.annotations = {"ABCD": b"1"}
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(proxy.came))
    thread.start()
    thread.join(PATIENCE)
    assert found == [[]]
    assert proxy.came == ["ABCD"]


def test_a_failure_carries_none(serve: Serve) -> None:
    proxy = serve(Thing()).proxy()
    with pytest.raises(ValueError, match="failed"):
        proxy.fail()
    assert current_context.response_annotations == {}
    proxy.add("NEXT")
    assert current_context.response_annotations == {"NEXT": b"added"}


@pytest.mark.feature("F238")
@pytest.mark.parametrize(
    ("annotations", "why"),
    [
        ({"ABC": b"x"}, "must be 4 ascii characters, not 'ABC'"),
        ({"ABCDE": b"x"}, "must be 4 ascii characters"),
        ({"ABCÄ": b"x"}, "must be 4 ascii characters"),
        ({1234: b"x"}, "must be 4 ascii characters, not 1234"),
        ({b"ABCD": b"x"}, "must be 4 ascii characters"),
        ({"ABCD": "x"}, "must be bytes, not str"),
        ({"ABCD": None}, "must be bytes, not NoneType"),
        *(({key: b"x"}, f"in use by the protocol: '{key}'") for key in ("CORR", "HMAC", "STRM", "BLBI", "PLUG")),
    ],
)
def test_bad_ones_are_refused_before_anything_is_sent(annotations: Any, why: str, serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    proxy.swap()
    connection, seq = proxy._pyroConnection, proxy._pyroSeq
    current_context.annotations = annotations
    with pytest.raises(ProtocolError, match=why):
        proxy.swap()
    current_context.annotations = {}
    assert (proxy._pyroConnection, proxy._pyroSeq) == (connection, seq)
    assert proxy.swap() == {}


@pytest.mark.feature("F238")
def test_bad_ones_of_a_method_are_told_to_its_caller(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    for wrong, why in (
        ({"STRM": b"x"}, "in use by the protocol"),
        ({"toolong": b"x"}, "must be 4 ascii"),
        ({"ABCD": 5}, "must be bytes"),
    ):
        with pytest.raises(ProtocolError, match=why):
            proxy.answer(wrong)
    with pytest.raises(ProtocolError, match="must be bytes, not str"):
        proxy.answer_text()
    assert proxy.swap() == {}


@pytest.mark.feature("F238")
def test_large_and_many(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy()
    current_context.annotations = {f"{number:04}": bytes(100_000) for number in range(50)}
    assert proxy.size() == 5_000_000


@pytest.mark.feature("F238")
def test_they_count_for_the_size_of_the_message(serve_some: Serve) -> None:
    proxy = serve_some(Thing(), MAX_MESSAGE_SIZE=10_000).proxy()
    current_context.annotations = {"ABCD": bytes(9_000)}
    assert proxy.size() == 9_000
    current_context.annotations = {"ABCD": bytes(11_000)}
    with pytest.raises(ProtocolError, match="too large"):
        proxy.size()


@pytest.mark.feature("F235", "F225")
def test_the_handshake_has_them_too(serve_at: Serve) -> None:
    seen = []

    class Validating(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            seen.append(dict(current_context.annotations))
            return "hello"

    served = serve_at(Thing(), daemon_class=Validating)
    current_context.annotations = {"TOKN": b"secret"}
    served.proxy()._pyroBind()
    current_context.annotations = {}
    served.proxy()._pyroBind()
    assert [{key: value for key, value in each.items() if key != "PLUG"} for each in seen] == [{"TOKN": b"secret"}, {}]


class OldProxy(Proxy):
    """As Pyro4 programs do it."""

    def _pyroAnnotations(self) -> Mapping[str, bytes]:
        return {**super()._pyroAnnotations(), "OLDP": b"OLD"}

    def _pyroResponseAnnotations(self, annotations: Mapping[str, bytes], msgtype: int) -> None:
        self.__dict__.setdefault("told", []).append((dict(annotations), msgtype))


@pytest.mark.feature("F239")
def test_the_old_hooks_of_proxies(serve_some: Serve) -> None:
    proxy = serve_some(Thing()).proxy(cls=OldProxy)
    current_context.annotations = {"ABCD": b"NEW"}
    assert proxy.swap() == {"OLDP": "OLD", "ABCD": "NEW"}
    assert proxy.__dict__["told"] == [({"OLDP": b"old", "ABCD": b"new"}, RESULT)]


class OldDaemon(Daemon):
    def annotations(self) -> dict[str, bytes]:
        return {**super().annotations(), "DAEM": b"on"}


@pytest.mark.feature("F239")
def test_the_old_hook_of_daemons(serve_some: Serve) -> None:
    proxy = serve_some(Thing(), daemon_class=OldDaemon).proxy()
    proxy.add("METH")
    assert current_context.response_annotations == {"METH": b"added", "DAEM": b"on"}
    with pytest.raises(ValueError, match="failed"):
        proxy.fail()
    assert current_context.response_annotations == {"DAEM": b"on"}  # wire.md 10: these also with exceptions


def test_the_hook_of_one_daemon() -> None:
    with Served() as served:
        served.daemon.annotations = lambda: {"INST": b"1"}  # type: ignore[method-assign]
        served.publish(Thing())
        served.proxy().swap()
        assert current_context.response_annotations == {"INST": b"1"}


def test_a_daemon_with_bad_annotations_still_answers(serve_some: Serve) -> None:
    class Bad(Daemon):
        def annotations(self) -> Any:
            return {"bad": 1}

    with pytest.raises(Exception, match="must be 4 ascii characters"):
        serve_some(Thing(), daemon_class=Bad).proxy().swap()


@pytest.mark.feature("F240")
def test_binary_data_beside_the_items_of_a_stream(serve_threads: Serve) -> None:
    """As the example filetransfer does it: one item at a time, its data in an annotation."""
    proxy = serve_threads(Thing(), ITER_STREAM_CHUNK=1).proxy()
    got = [(number, current_context.response_annotations["DATA"]) for number in proxy.items()]
    assert got == [(0, b"\0\0\0"), (1, b"\1\1\1"), (2, b"\2\2\2")]


def test_without_the_plugin_nothing_is_sent_and_the_caller_is_told() -> None:
    kernel = make_kernel(environ={"PYRO_DISABLE_PLUGINS": "annotations"})
    with Served(kernel=kernel) as served:
        served.publish(Thing())
        proxy = served.proxy()
        current_context.annotations = {"ABCD": b"1"}
        with pytest.raises(PluginError, match="annotations"):
            proxy.swap()
        current_context.annotations = {}
        assert proxy.swap() == {}
    kernel.close()
