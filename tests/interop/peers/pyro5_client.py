"""A real Pyro5 client that runs checks against our daemons.

Reads one line of JSON from its standard input: the URI of the object ``demo`` by transport, the URI of one whose
daemon accepts the default serializers only, and how long to wait.  Prints JSON:
``{transport: {serializer: {check: {"value": ...} or {"raised": class, "text": ..., "traceback": [...]}}}}``.

With the arguments ``pair DESCRIPTOR`` it talks over that socket.
"""

# ruff: noqa: T201 - what it prints is its report

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import Pyro5.api
import Pyro5.errors
import Pyro5.protocol

CHECKS: dict[str, Callable[[Peer], Any]] = {}
SERIALIZERS = ("serpent", "json", "msgpack", "marshal")


def check(function: Callable[[Peer], Any]) -> Callable[[Peer], Any]:
    CHECKS[function.__name__] = function
    return function


class Peer:
    """Makes proxies for the objects of one daemon, with one serializer."""

    def __init__(self, uri: str, serializer: str, strict: str, callback: Callback, patience: float) -> None:
        self.uri = uri
        self.serializer = serializer
        self.strict = strict
        self.callback = callback
        self.patience = patience
        self.proxies: list[Any] = []

    def proxy(self, name: str = "demo", cls: Any = Pyro5.api.Proxy) -> Any:
        proxy = cls(self.uri.replace("PYRO:demo@", f"PYRO:{name}@"))
        proxy._pyroSerializer = self.serializer
        self.proxies.append(proxy)
        return proxy

    def close(self) -> None:
        for proxy in self.proxies:
            proxy._pyroRelease()


# ------------------------------------------------------------------------ calls
@check
def positional(peer: Peer) -> Any:
    return peer.proxy().add(3, 4)


@check
def keywords(peer: Peer) -> Any:
    return peer.proxy().kwargs(1, "two", a=3, b=[4])


@check
def nothing(peer: Peer) -> Any:
    return peer.proxy().nothing()


@check
def values(peer: Peer) -> Any:
    value = {"t": [1, 2.5, None, True], "s": "h\u00e9llo \u20ac", "n": -(2**70), "d": {"x": []}}
    return peer.proxy().echo(value) == value


@check
def binary(peer: Peer) -> Any:
    result = peer.proxy().echo(b"\x00\xff raw")
    if peer.serializer == "serpent":
        import serpent

        result = serpent.tobytes(result)
    return result.hex()


@check
def big(peer: Peer) -> Any:
    text = "x" * 1_000_000
    return peer.proxy().echo(text) == text


@check
def many_calls_on_one_connection(peer: Peer) -> Any:
    proxy = peer.proxy()
    return sum(proxy.add(i, 1) for i in range(200))


@check
def class_and_static_methods(peer: Peer) -> Any:
    proxy = peer.proxy()
    return [proxy.by_class(), proxy.by_static(4)]


@check
def several_connections(peer: Peer) -> Any:
    proxies = [peer.proxy() for _ in range(20)]
    return [proxy.add(i) for i, proxy in enumerate(proxies)]


# ------------------------------------------------------------------------ errors
@check
def builtin_error(peer: Peer) -> Any:
    return peer.proxy().boom()


@check
def error_with_attributes(peer: Peer) -> Any:
    try:
        peer.proxy().boom_attributes()
    except ValueError as error:
        return [list(error.args), vars(error)["extra"]]


@check
def pyro_error(peer: Peer) -> Any:
    return peer.proxy().boom_pyro()


@check
def error_of_a_class_of_the_server(peer: Peer) -> Any:
    return peer.proxy().boom_custom()


@check
def error_that_only_we_have(peer: Peer) -> Any:
    return peer.proxy().boom_overload()


@check
def system_exit(peer: Peer) -> Any:
    return peer.proxy().boom_exit()


@check
def result_that_cannot_travel(peer: Peer) -> Any:
    return peer.proxy().unserializable()


@check
def the_connection_outlives_errors(peer: Peer) -> Any:
    proxy = peer.proxy()
    for method in ("boom", "boom_attributes", "boom_pyro", "boom_exit"):
        try:
            getattr(proxy, method)()
        except Exception:
            pass
    connection = proxy._pyroConnection
    return [proxy.add(1, 1), proxy._pyroConnection is connection]


@check
def wrong_arguments(peer: Peer) -> Any:
    return peer.proxy().add(1, 2, 3)


@check
def private_method(peer: Peer) -> Any:
    return peer.proxy()._pyroInvoke("_private", (), {})


@check
def unexposed_method(peer: Peer) -> Any:
    return peer.proxy()._pyroInvoke("unexposed", (), {})


@check
def unknown_method(peer: Peer) -> Any:
    return peer.proxy()._pyroInvoke("nosuch", (), {})


@check
def dotted_method(peer: Peer) -> Any:
    return peer.proxy()._pyroInvoke("echo.__class__", (), {})


@check
def unknown_member_is_refused_by_the_proxy(peer: Peer) -> Any:
    return peer.proxy().nosuch


# ------------------------------------------------------------------------ attributes, metadata
@check
def attribute_get(peer: Peer) -> Any:
    return peer.proxy().readonly


@check
def attribute_set(peer: Peer) -> Any:
    proxy = peer.proxy()
    proxy.value = 77
    return proxy.value


@check
def attribute_set_readonly(peer: Peer) -> Any:
    peer.proxy().readonly = 1


@check
def metadata(peer: Peer) -> Any:
    proxy = peer.proxy()
    proxy._pyroBind()
    kinds = [type(x).__name__ for x in (proxy._pyroMethods, proxy._pyroOneway, proxy._pyroAttrs)]
    return [kinds, sorted(proxy._pyroMethods), sorted(proxy._pyroOneway), sorted(proxy._pyroAttrs)]


@check
def nothing_exposed(peer: Peer) -> Any:
    return peer.proxy("hidden")._pyroBind()


@check
def item_protocol(peer: Peer) -> Any:
    items = peer.proxy("items")
    return [len(items), items[1], list(items), "b" in items]


# ------------------------------------------------------------------------ oneway, ping
@check
def oneway(peer: Peer) -> Any:
    proxy = peer.proxy()
    answer = proxy.fire(11)
    return [answer, proxy.fired(peer.patience)]


@check
def oneway_errors_are_not_seen(peer: Peer) -> Any:
    proxy = peer.proxy()
    proxy._pyroBind()
    proxy._pyroOneway.add("boom")
    return [proxy.boom(), proxy.add(2, 2)]


@check
def wire_ping(peer: Peer) -> Any:
    proxy = peer.proxy()
    proxy._pyroBind()
    Pyro5.protocol.SendingMessage.ping(proxy._pyroConnection)
    return proxy.add(1, 2)


# ------------------------------------------------------------------------ proxies and uris
@check
def their_proxy_is_called_back(peer: Peer) -> Any:
    with Pyro5.api.Proxy(peer.callback.uri) as proxy:
        return peer.proxy().call_back(proxy, 41)


@check
def their_registered_object_becomes_a_proxy(peer: Peer) -> Any:
    return peer.proxy().call_back(peer.callback.target, 41)


@check
def their_proxy_comes_back(peer: Peer) -> Any:
    sent = Pyro5.api.Proxy(peer.callback.uri)
    got = peer.proxy().echo(sent)
    return [type(got).__name__, got == sent]


@check
def our_registered_object_becomes_a_proxy(peer: Peer) -> Any:
    got = peer.proxy().sub()
    with got:
        return [type(got).__name__, sorted(got._pyroMethods), got.hi("you")]


@check
def our_uri(peer: Peer) -> Any:
    got = peer.proxy().uri()
    return [type(got).__name__, str(got)]


@check
def their_uri(peer: Peer) -> Any:
    got = peer.proxy().echo(Pyro5.api.URI("PYRO:abc@localhost:1234"))
    return [type(got).__name__, str(got)]


# ------------------------------------------------------------------------ handshake
@check
def handshake_accepted_with_an_answer(peer: Peer) -> Any:
    answers: list[Any] = []

    class Validating(Pyro5.api.Proxy):  # type: ignore[misc]
        def _pyroValidateHandshake(self, response: Any) -> None:
            answers.append(response)

    proxy = peer.proxy(cls=Validating)
    proxy._pyroHandshake = {"user": "u", "pw": [1, 2]}
    return [proxy.add(1, 1), answers]


@check
def handshake_denied(peer: Peer) -> Any:
    proxy = peer.proxy()
    proxy._pyroHandshake = "deny"
    return proxy.add(1, 1)


@check
def unknown_object(peer: Peer) -> Any:
    return peer.proxy("nosuch").add(1, 1)


@check
def unknown_object_in_a_call(peer: Peer) -> Any:
    return peer.proxy()._pyroInvoke("add", (1, 1), {}, objectId="nosuch")


@check
def serializer_that_is_not_accepted(peer: Peer) -> Any:
    proxy = Pyro5.api.Proxy(peer.strict)
    proxy._pyroSerializer = "marshal"
    return proxy.add(1, 1)


@check
def serializer_that_is_not_accepted_later(peer: Peer) -> Any:
    with Pyro5.api.Proxy(peer.strict) as proxy:
        proxy._pyroSerializer = peer.serializer
        before = proxy.add(1, 1) if peer.serializer != "marshal" else 2
        proxy._pyroSerializer = "serpent"
        proxy._pyroBind()
        proxy._pyroSerializer = "marshal"
        try:
            proxy.add(1, 1)
        except Pyro5.errors.SerializeError as error:
            return [before, str(error)]


# ------------------------------------------------------------------------ the daemon's object
@check
def daemon_object(peer: Peer) -> Any:
    daemon = peer.proxy("Pyro.Daemon")
    metadata = daemon.get_metadata("demo")
    return [
        daemon.ping(),
        daemon.registered(),
        type(daemon.info()).__name__,
        sorted(metadata),
        sorted(metadata["attrs"]),
        sorted(daemon._pyroMethods),
    ]


@check
def daemon_metadata_of_an_unknown_object(peer: Peer) -> Any:
    return peer.proxy("Pyro.Daemon").get_metadata("nosuch")


# ------------------------------------------------------------------------ context, compression
@check
def context(peer: Peer) -> Any:
    current = Pyro5.api.current_context
    current.correlation_id = uuid.UUID("11112222-3333-4444-5555-666677778888")
    current.annotations = {"TEST": b"note"}
    try:
        seen = peer.proxy().context()
        answer = {key: bytes(value).decode() for key, value in current.response_annotations.items()}
        return [seen["correlation"], seen["annotations"], seen["serializer"], seen["seq"], answer]
    finally:
        current.correlation_id = None
        current.annotations = {}


@check
def compressed_by_us_and_by_them(peer: Peer) -> Any:
    text = "compress me " * 1000
    config: Any = Pyro5.config
    results = []
    for ours in (False, True):
        for theirs in (False, True):
            peer.proxy().compress(ours)
            config.COMPRESSION = theirs
            try:
                results.append(peer.proxy().echo(text) == text)
            finally:
                config.COMPRESSION = False
    peer.proxy().compress(False)
    return results


@check
def sequence_numbers_wrap(peer: Peer) -> Any:
    proxy = peer.proxy()
    proxy._pyroBind()
    proxy._pyroSeq = 0xFFFE
    return [[proxy.add(i), proxy._pyroSeq] for i in range(3)]


@check
def reconnecting(peer: Peer) -> Any:
    proxy = peer.proxy()
    results = [proxy.add(1)]
    proxy._pyroRelease()
    results.append(proxy.add(2))
    return results


# ------------------------------------------------------------------------ streams, batches, blobs
@check
def stream(peer: Peer) -> Any:
    proxy = peer.proxy()
    return [list(proxy.gen(5)), list(proxy.gen(0)), proxy.add(1)]


@check
def stream_that_fails(peer: Peer) -> Any:
    items = []
    try:
        for item in peer.proxy().gen_fail():
            items.append(item)
    except ValueError as error:
        return [items, str(error)]


@check
def streams_at_the_same_time(peer: Peer) -> Any:
    proxy = peer.proxy()
    return [list(pair) for pair in zip(proxy.gen(3), proxy.gen(3))]  # noqa: B905 - the older Pythons too


@check
def stream_closed_early(peer: Peer) -> Any:
    proxy = peer.proxy()
    items = proxy.gen(1_000_000)
    first = next(items)
    stream_id = items.streamId
    items.close()  # a oneway call: some time later it is done
    daemon = peer.proxy("Pyro.Daemon")
    deadline = time.monotonic() + peer.patience
    while time.monotonic() < deadline:
        try:
            daemon.get_next_stream_item(stream_id)
        except Pyro5.errors.PyroError as error:
            return [first, str(error), proxy.add(1)]
    return "the stream is still there"


@check
def batch(peer: Peer) -> Any:
    calls: Any = Pyro5.api.BatchProxy(peer.proxy())
    calls.add(1, 2)
    calls.kwargs("z", k=1)
    return list(calls())


@check
def batch_that_fails(peer: Peer) -> Any:
    calls: Any = Pyro5.api.BatchProxy(peer.proxy())
    calls.add(1, 2)
    calls.boom()
    calls.add(3, 4)
    results = []
    try:
        for result in calls():
            results.append(result)
    except ZeroDivisionError as error:
        return [results, str(error), any("1 / 0" in line for line in vars(error)["_pyroTraceback"])]


@check
def batch_oneway(peer: Peer) -> Any:
    proxy = peer.proxy()
    calls: Any = Pyro5.api.BatchProxy(proxy)
    calls.fire(5)
    return [calls(oneway=True), proxy.fired(peer.patience)]


@check
def blob(peer: Peer) -> Any:
    return peer.proxy().blob(Pyro5.api.SerializedBlob("info-tag", [1, "two"]))


# ------------------------------------------------------------------------ running them
@Pyro5.api.expose
class Target:
    def add(self, a: Any, b: Any) -> Any:
        return a + b


class Callback:
    """A daemon of this process, for calls back."""

    def __init__(self) -> None:
        self.daemon = Pyro5.api.Daemon()
        self.target = Target()
        self.uri = self.daemon.register(self.target, "target")
        threading.Thread(target=self.daemon.requestLoop, daemon=True).start()


def run(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    try:
        return {"value": function(*args)}
    except Exception as error:
        kind = type(error)
        return {
            "raised": f"{kind.__module__}.{kind.__qualname__}",
            "text": str(error),
            "traceback": getattr(error, "_pyroTraceback", None),
        }


def over_tcp_and_unix() -> Any:
    order = json.loads(sys.stdin.readline())
    results: dict[str, dict[str, Any]] = {}
    for transport, uri in order["uris"].items():
        for serializer in SERIALIZERS:
            callback = Callback()
            found = results.setdefault(transport, {}).setdefault(serializer, {})
            for name, function in CHECKS.items():
                peer = Peer(uri, serializer, order["strict"], callback, order["patience"])
                found[name] = run(function, peer)
                peer.close()
            callback.daemon.shutdown()
    return results


def over_a_pair(descriptor: str) -> Any:
    def each(serializer: str) -> Any:
        proxy = Pyro5.api.Proxy(
            "demo", connected_socket=socket.fromfd(int(descriptor), socket.AF_UNIX, socket.SOCK_STREAM)
        )
        proxy._pyroSerializer = serializer
        result = [proxy.add(1, 2), proxy.kwargs(1, b=2), str(proxy._pyroUri), sorted(proxy._pyroAttrs)]
        try:
            proxy.boom()
        except ZeroDivisionError as error:
            result.append(str(error))
        if serializer != "marshal":
            result.append(proxy.readonly)
        return result

    return {serializer: run(each, serializer) for serializer in SERIALIZERS}


if __name__ == "__main__":
    print(json.dumps(over_a_pair(sys.argv[2]) if sys.argv[1:2] == ["pair"] else over_tcp_and_unix()))
