"""Bad input, item by item: a clear error where it was caused, one line in the log of the other side, nobody harmed."""

from __future__ import annotations

import random
import re
import socket
import struct
from typing import Any

import pytest

from pyroplug.api import (
    CommunicationError,
    ConnectionRefusedByPeer,
    DaemonError,
    Proxy,
    RemoteError,
    SerializeError,
    URIError,
    expose,
)
from pyroplug.core.wire import (
    CONNECT,
    CONNECTFAIL,
    CONNECTOK,
    FLAG_COMPRESSED,
    FLAG_EXCEPTION,
    INVOKE,
    RESULT,
    encode,
    read_marshalled_text,
)
from pyroplug.testing.kernels import PATIENCE, Serve, Served, WirePeer, as_bytes, make_kernel
from pyroplug.testing.transports import in_thread

GARBAGE = [
    b"\0" * 64,
    b"\xff" * 64,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),  # a TLS hello
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"PYRX" + bytes(60),
    b"P",
]


def refusal(peer: WirePeer) -> str:
    """The reason of the CONNECTFAIL that must come, after which the connection ends."""
    frame = peer.message()
    assert frame.type == CONNECTFAIL
    text = read_marshalled_text(frame.payload) if frame.serializer_id == 2 else str(peer.value(frame))
    assert peer.ended()
    return text


# --------------------------------------------------------------------------- caught on the client, nothing is sent
@pytest.mark.feature("F001", "F002")
@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("HTTP:thing@localhost:4444", "invalid uri"),
        ("PYROX:thing@localhost:4444", "unknown protocol 'PYROX'"),
        ("", "invalid uri"),
        ("thing", "invalid uri"),
        ("PYRO:thing", "location is missing"),
        ("PYRO:thing@", "invalid uri|location is missing"),
        ("PYRO:thing@localhost", "needs a port"),
        ("PYRO:thing@localhost:", "port is missing"),
        ("PYRO:thing@localhost:http", "invalid port 'http'"),
        ("PYRO:thing@localhost:65536", "invalid port '65536'.*0 to 65535"),
        ("PYRO:thing@localhost:-1", "invalid port '-1'"),
        ("PYRO:thing@localhost:1e3", "invalid port"),
        ("PYRO:thing@[::1:4444", "invalid ipv6 address"),
        ("PYRO:thing@[[::1]]:4444", "brackets are doubled"),
        ("PYRO:thing@::1:4444", "brackets"),
        ("PYRO:thing@./x", "expected ./u:path"),
        ("PYRO:two words@localhost:4444", "invalid uri"),
        ("PYROMETA:a,,b", "empty tag"),
    ],
)
def test_uris_that_are_none(uri: str, text: str) -> None:
    with pytest.raises(URIError, match=text) as caught:
        Proxy(uri, kernel=make_kernel())
    assert isinstance(caught.value, ValueError)
    assert uri in str(caught.value)


def test_a_scheme_that_no_transport_knows() -> None:
    with pytest.raises(CommunicationError, match=r"no transport is loaded for './q:somewhere' \(there are: "):
        Proxy("PYRO:thing@./q:somewhere", kernel=make_kernel()).echo()


def test_a_host_that_does_not_resolve() -> None:
    with pytest.raises(CommunicationError, match=r"no-such-host\.invalid"):
        Proxy("PYRO:thing@no-such-host.invalid:4444", kernel=make_kernel(CONNECT_TIMEOUT=PATIENCE)).echo()


def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(CommunicationError, match=f"cannot connect to .*127.0.0.1:{port}"):
        Proxy(f"PYRO:thing@127.0.0.1:{port}", kernel=make_kernel()).echo()


@pytest.mark.feature("F120")
def test_a_serializer_that_does_not_exist() -> None:
    kernel = make_kernel()
    with pytest.raises(SerializeError, match=r"unknown serializer 'serpnt' \(did you mean 'serpent'\?\); known are"):
        Proxy("PYRO:thing@localhost:4444", kernel=make_kernel(SERIALIZER="serpnt"))
    proxy = Proxy("PYRO:thing@localhost:4444", kernel=kernel)
    with pytest.raises(SerializeError, match="unknown serializer 'yaml'"):
        proxy._pyroSerializer = "yaml"


def test_an_argument_that_cannot_be_encoded(serve: Serve, harmless: Any) -> None:
    served = serve()
    proxy = served.proxy()
    proxy.echo(1)
    connection = proxy._pyroConnection
    with harmless(served, lines=0), pytest.raises(SerializeError, match="don't know how to serialize class"):
        proxy.echo([1, {"deep": object()}])
    assert proxy._pyroConnection is connection
    assert served.daemon.objectsById["thing"].calls == [1, "before", "after", "newcomer"]


# --------------------------------------------------------------------------- caught on the server
def test_a_result_that_cannot_be_encoded(serve: Serve, harmless: Any) -> None:
    served = serve()
    proxy = served.proxy()
    with harmless(served) as records, pytest.raises(SerializeError, match="don't know how to serialize class"):
        proxy.bad_result()
    assert "thing.bad_result" in records[0].getMessage()


def test_an_object_that_is_not_registered(serve: Serve, harmless: Any) -> None:
    served = serve()
    with harmless(served) as records, pytest.raises(ConnectionRefusedByPeer, match="unknown object: nowhere"):
        served.proxy("nowhere").echo()
    assert "handshake refused" in records[0].getMessage()
    assert "unknown object: nowhere" in records[0].getMessage()
    proxy = served.proxy()
    with harmless(served) as records, pytest.raises(DaemonError, match="unknown object: nowhere"):
        proxy._pyroInvoke("echo", [], {}, objectId="nowhere")
    assert "nowhere.echo" in records[0].getMessage()


@pytest.mark.feature("F223", "F269", "F053")
@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("hidden", "attempt to access unexposed attribute 'hidden' of class Hidden"),
        ("_private", "attempt to access private attribute '_private'"),
        ("__init__", "attempt to access private attribute '__init__'"),
        ("__class__", "attempt to access private attribute '__class__'"),
        ("__reduce__", "attempt to access private attribute '__reduce__'"),
        ("__dict__", "has no attribute '__dict__'|private|unexposed"),
        ("__globals__", "has no attribute"),
        ("shown.__func__", "has no attribute"),
        ("shown.__globals__", "has no attribute"),
        ("nowhere", "'Hidden' object has no attribute 'nowhere'"),
        ("", "has no attribute ''"),
        ("x" * 10_000, "has no attribute"),
        ("evil\nWARNING: fake line", "has no attribute"),
    ],
)
def test_members_that_are_not_for_you(serve: Serve, harmless: Any, member: str, text: str) -> None:
    served = serve()
    peer = served.peer()
    peer.hello("hidden")
    with harmless(served):
        frame = peer.call("hidden", member)
        assert (frame.type, frame.flags) == (RESULT, FLAG_EXCEPTION)
        error = peer.value(frame)
        assert isinstance(error, AttributeError)
        assert re.search(text, str(error)), error
    assert peer.value(peer.call("hidden", "shown")) == "shown"


@pytest.mark.parametrize("name", ["__getattr__", "__setattr__"])
def test_attributes_that_are_not_for_you(serve: Serve, harmless: Any, name: str) -> None:
    served = serve()
    peer = served.peer()
    peer.hello()
    for attribute in ("calls", "__class__", "echo", 5, None, ["echo"]):
        arguments = (attribute, 1) if name == "__setattr__" else (attribute,)
        with harmless(served):
            error = peer.value(peer.call("thing", name, *arguments))
            assert isinstance(error, (AttributeError, TypeError)), error
    assert isinstance(served.daemon.objectsById["thing"].calls, list)


def test_a_serializer_that_is_not_accepted(serve: Serve, harmless: Any) -> None:
    """A peer cannot pick a decoder that the server did not allow, before or after the handshake."""
    served = serve()
    marshal, pickle, nobody = 2, 5, 200
    for wire_id in (marshal, pickle, nobody, 0, 255):
        peer = served.peer()
        with harmless(served):
            peer.send(encode(CONNECT, wire_id, 0, 0, b"cos\nsystem\n(S'false'\ntR."))
            assert f"serializer that is not accepted: {wire_id}" in refusal(peer)
        peer = served.peer()
        peer.hello()
        with harmless(served):
            peer.send(encode(INVOKE, wire_id, 0, 1, b"cos\nsystem\n(S'false'\ntR."))
            error = peer.value(peer.message())
            assert isinstance(error, SerializeError)
            assert f"not accepted: {wire_id}" in str(error)
        assert peer.value(peer.call("thing", "echo", 1)) == 1


# --------------------------------------------------------------------------- bytes
@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_in_place_of_a_handshake(serve: Serve, harmless: Any, data: bytes) -> None:
    served = serve()
    peer = served.peer()
    if data == b"P":
        with harmless(served, lines=0):
            peer.send(data)
            peer.close()  # cannot be told from a message yet
        return
    with harmless(served) as records:
        peer.send(data)
        assert "invalid data" in refusal(peer)
    assert "handshake refused" in records[0].getMessage()


@pytest.mark.parametrize("data", GARBAGE[:-1], ids=range(len(GARBAGE) - 1))
def test_garbage_after_the_handshake(serve: Serve, harmless: Any, data: bytes) -> None:
    served = serve()
    peer = served.peer()
    peer.hello()
    with harmless(served):
        peer.send(peer.call_message("thing", "echo", "the last good one") + data)
        assert peer.value(peer.message()) == "the last good one"
        assert peer.ended()


@pytest.mark.feature("F115", "F116")
@pytest.mark.parametrize("version", [0, 1, 48, 501, 503, 65535])
def test_another_version_of_the_wire(serve: Serve, harmless: Any, version: int) -> None:
    served = serve()
    peer = served.peer()
    message = bytearray(peer.connect_message())
    message[4:6] = struct.pack("!H", version)
    with harmless(served) as records:
        peer.send(bytes(message))
        assert refusal(peer) == f"invalid protocol version: {version}"
    assert str(version) in records[0].getMessage()


def test_a_bad_magic_number(serve: Serve, harmless: Any) -> None:
    served = serve()
    peer = served.peer()
    message = bytearray(peer.connect_message())
    message[38:40] = b"\0\0"
    with harmless(served):
        peer.send(bytes(message))
        assert "invalid message" in refusal(peer)


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 5, 6, 7, 99, 255])
def test_messages_that_have_no_place_before_the_handshake(serve: Serve, harmless: Any, kind: int) -> None:
    served = serve()
    peer = served.peer()
    with harmless(served):
        peer.send(encode(kind, 1, 0, 0, b"x"))
        assert f"unexpected message type {kind}" in refusal(peer)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 5, 7, 99, 255])
def test_messages_that_have_no_place_after_the_handshake(serve: Serve, harmless: Any, kind: int) -> None:
    served = serve()
    peer = served.peer()
    peer.hello()
    with harmless(served) as records:
        peer.send(encode(kind, 1, 0, 0, b"x"))
        assert peer.ended()
    assert f"unexpected message type {kind}" in records[0].getMessage()


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
@pytest.mark.parametrize(
    "value", [None, 5, "text", [], {}, {"handshake": "x"}, {"object": "thing"}, {"handshake": 1, "object": ["thing"]}]
)
def test_a_handshake_that_is_none(serve: Serve, harmless: Any, serializer: str, value: Any) -> None:
    served = serve()
    peer = served.peer()
    with harmless(served):
        payload = served.kernel.codecs()[serializer].dumps(value)
        peer.send(encode(CONNECT, served.kernel.serializer_id(serializer), 0, 0, payload))
        assert "invalid handshake: expected a dict with 'handshake' and 'object'" in refusal(peer)


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"{", b"(" * 50, b"[1,2", b"\xff\xfe\xfd", b"# serpent utf-8\n{'a'"])
def test_payloads_that_cannot_be_decoded(serve: Serve, harmless: Any, serializer: str, payload: bytes) -> None:
    served = serve()
    wire_id = served.kernel.serializer_id(serializer)
    peer = served.peer()
    with harmless(served):
        peer.send(encode(CONNECT, wire_id, 0, 0, payload))
        assert refusal(peer)
    peer = served.peer()
    peer.hello()
    with harmless(served):
        peer.send(encode(INVOKE, wire_id, 0, 1, payload))
        frame = peer.message()
        assert (frame.type, frame.flags) == (RESULT, FLAG_EXCEPTION)
        assert isinstance(peer.value(frame), Exception)
    assert peer.value(peer.call("thing", "echo", 1, serializer=serializer)) == 1


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
@pytest.mark.parametrize(
    "value",
    [None, 5, [], ["thing"], ["thing", "echo"], ["thing", "echo", 5, {}], [["thing"], "echo", [], {}], {"a": 1}],
)
def test_requests_that_have_another_shape(serve: Serve, harmless: Any, serializer: str, value: Any) -> None:
    served = serve()
    peer = served.peer()
    peer.hello()
    with harmless(served):
        payload = served.kernel.codecs()[serializer].dumps(value)
        peer.send(encode(INVOKE, served.kernel.serializer_id(serializer), 0, 1, payload))
        frame = peer.message()
        assert (frame.type, frame.flags) == (RESULT, FLAG_EXCEPTION)
    assert peer.value(peer.call("thing", "echo", 1, serializer=serializer)) == 1


def annotated(area: bytes, payload: bytes = b"") -> bytes:
    """A CONNECT message with these bytes as its annotations."""
    message = bytearray(as_bytes(encode(CONNECT, 1, 0, 0, area + payload)))
    struct.pack_into("!II", message, 12, len(payload), len(area))
    return bytes(message)


@pytest.mark.parametrize(
    ("area", "text"),
    [
        (b"ABCD", "truncated chunk header"),
        (b"ABCD" + struct.pack("!I", 100) + b"short", "longer than the annotations area"),
        (b"\xff\xff\xff\xff" + struct.pack("!I", 0), "not ascii"),
        (b"".join(b"A%03d" % n + struct.pack("!I", 0) for n in range(101)), "too many annotations"),
        (struct.pack("!4sI", b"ABCD", 0xFFFFFFFF), "longer than the annotations area"),
    ],
)
def test_bad_annotations(serve: Serve, harmless: Any, area: bytes, text: str) -> None:
    served = serve()
    peer = served.peer()
    with harmless(served):
        peer.send(annotated(area))
        assert text in refusal(peer)


def test_a_compressed_payload_that_is_none(serve: Serve, harmless: Any) -> None:
    served = serve()
    for data in (b"", b"no zlib", b"\x78\x5e", b"\x78\x9c\x03"):
        peer = served.peer()
        with harmless(served):
            peer.send(encode(CONNECT, 1, FLAG_COMPRESSED, 0, data))
            assert "invalid compressed payload" in refusal(peer)
        peer = served.peer()
        peer.hello()
        with harmless(served):
            peer.send(encode(INVOKE, 1, FLAG_COMPRESSED, 1, data))
            assert "invalid compressed payload" in str(peer.value(peer.message()))
        assert peer.value(peer.call("thing", "echo", 1)) == 1


def test_a_message_that_ends_too_early(serve: Serve, harmless: Any) -> None:
    """Of the handshake and of a call, cut at every byte: the client is gone, nobody has to be told."""
    served = serve()
    proto = served.peer()
    connect = proto.connect_message()
    proto.hello()
    call = proto.call_message("thing", "echo", "never seen")
    with harmless(served, lines=0):
        for cut in range(1, len(connect)):
            with served.peer() as peer:
                peer.send(connect[:cut])
        for cut in range(1, len(call), 3):
            with served.peer() as peer:
                peer.hello()
                peer.send(call[:cut])
    assert "never seen" not in served.daemon.objectsById["thing"].calls


def test_texts_of_a_peer_cannot_pass_for_lines_of_the_log(serve: Serve, harmless: Any) -> None:
    served = serve()
    evil = "x\nWARNING fake: all is lost"
    peer = served.peer()
    with harmless(served):
        assert peer.hello(evil).type == CONNECTFAIL
    peer = served.peer()
    peer.hello()
    with harmless(served):
        peer.call(evil, evil)


def test_a_peer_chooses_no_dangerous_exception() -> None:
    """Scenario 51, on the client: whatever class a server names, only ordinary exceptions are raised."""
    for name in ("builtins.SystemExit", "SystemExit", "builtins.KeyboardInterrupt", "os.system", "GeneratorExit"):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer(server: socket.socket = server, name: str = name) -> None:
                kernel = make_kernel()
                codec = kernel.codecs()["json"]
                sock, _ = server.accept()
                with sock:
                    sock.recv(65536)
                    meta = {"methods": ["echo"], "oneway": [], "attrs": []}
                    welcome = codec.dumps({"handshake": "hello", "meta": meta})
                    sock.sendall(as_bytes(encode(CONNECTOK, kernel.serializer_id("json"), 0, 0, welcome)))
                    sock.recv(65536)
                    payload = b'{"__class__": "%s", "__exception__": true, "args": [1], "attributes": {"__class__": 5}}'
                    reply = encode(RESULT, kernel.serializer_id("json"), FLAG_EXCEPTION, 1, payload % name.encode())
                    sock.sendall(as_bytes(reply))
                    sock.recv(1)

            answering = in_thread(answer)
            uri = f"PYRO:thing@127.0.0.1:{server.getsockname()[1]}"
            with Proxy(uri, kernel=make_kernel(SERIALIZER="json")) as proxy, pytest.raises(RemoteError) as caught:
                proxy.echo()
            assert caught.value.class_name == name
            answering.result(PATIENCE)


# --------------------------------------------------------------------------- servers that send nonsense
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "invalid data"),
        (as_bytes(encode(RESULT, 1, 0, 0, b"x")), "answered the handshake with message type 5"),
        (as_bytes(encode(CONNECTOK, 3, 0, 0, b"{}")), "invalid serializer"),
        (as_bytes(encode(CONNECTOK, 1, 0, 0, b"5")), "invalid handshake response"),
        (as_bytes(encode(CONNECTOK, 1, 0, 0, b"((((")), "serpent"),
        (as_bytes(encode(CONNECTFAIL, 2, 0, 0, b"c\x00\x00\x00")), "reason of the refusal cannot be read"),
        (as_bytes(encode(CONNECTFAIL, 2, 0, 0, b"z\x04busy")), "rejected: busy"),
        (b"", "closed by the other side"),
        (b"PYRO\x01\xf6", "closed by the other side"),
    ],
    ids=range(9),
)
def test_a_server_that_answers_nonsense(reply: bytes, error: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(reply)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass

        answering = in_thread(answer)
        proxy = Proxy(f"PYRO:thing@127.0.0.1:{server.getsockname()[1]}", kernel=make_kernel())
        with pytest.raises(CommunicationError, match=error):
            proxy.echo()
        assert proxy._pyroConnection is None
        answering.result(PATIENCE)


# --------------------------------------------------------------------------- many
def mutations(message: bytes, count: int, seed: int) -> Any:
    """The message, damaged in many ways."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(message)
        for _ in range(rng.randint(1, 4)):
            where = rng.randrange(len(data))
            how = rng.random()
            if how < 0.5:
                data[where] = rng.randrange(256)
            elif how < 0.7:
                del data[where:]
                data += b"\0"
            else:
                data[where:where] = rng.randbytes(rng.randint(1, 8))
        yield bytes(data)


@pytest.mark.stress
@pytest.mark.usefixtures("caplog")
def test_ten_thousand_damaged_messages(serve: Serve) -> None:
    """In 500 connections; whatever each of them does, the others and the daemon go on."""
    served = serve("memory", HANDSHAKE_TIMEOUT=PATIENCE)
    bystander = served.proxy()
    pattern = WirePeer(served.stream(), served.kernel)
    connect = pattern.connect_message()
    call = pattern.call_message("thing", "echo", {"key": [1, 2.5, "text", None]})
    calls = list(mutations(call, 9_500, 1))
    for number, damaged in enumerate(mutations(connect, 500, 2)):
        with served.peer() as early, served.peer() as late:
            early.send(damaged)
            late.send(connect + b"".join(calls[number * 19 : number * 19 + 19]))
            if number % 25 == 0:
                assert bystander.echo(number) == number
    assert bystander.echo("end") == "end"
    assert served.proxy().echo(1) == 1


def test_nothing_ends_a_worker(serve: Serve) -> None:
    """After all kinds of bad input each worker still works, and all at once."""

    class Careless:
        @expose
        def leave(self) -> None:
            raise SystemExit

    served: Served = serve(THREADPOOL_SIZE=2, THREADPOOL_SIZE_MIN=1)
    served.publish(Careless(), "careless")
    peers = [served.peer() for _ in range(6)]
    for peer in peers:
        peer.hello("careless")
    for _ in range(5):
        for peer in peers:
            assert peer.call("careless", "leave").flags == FLAG_EXCEPTION
            peer.send(encode(INVOKE, 1, 0, 1, b"(((("))
            assert peer.message().flags == FLAG_EXCEPTION
    for peer in peers:
        assert peer.value(peer.call("thing", "echo", 1)) == 1
