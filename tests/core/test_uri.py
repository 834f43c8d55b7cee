"""URIs: what is accepted, what is refused and with which words, and that Pyro5's own class agrees.

Where ours differs from Pyro5 5.17 on purpose:

* a port is a number from 0 to 65535 (theirs: anything ``int()`` takes, so also -1 and 70000);
* a Unix path may contain ``:`` (theirs refuses it), and text after an IPv6 address's port is refused (theirs ignores it);
* the default port of a name server is left out when such a URI is printed (theirs prints it);
* the tags of PYROMETA are printed in order (theirs: in the order of the set) and such a URI can be hashed;
* locations of further transports, ``./x:rest``, are accepted.
"""

from __future__ import annotations

import copy
import ipaddress
import pickle
from typing import Any

import Pyro5.core
import Pyro5.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyroplug.core.errors import PyroError, URIError
from pyroplug.core.uri import CONNECTED_SOCKET, URI, parse_location

VALID = [
    "PYRO:object@localhost:4444",
    "PYRO:obj_0123456789abcdef0123456789abcdef@127.0.0.1:0",
    "PYRO:object@host.example.com:65535",
    "pyro:object@Host:1",
    "Pyro:name.with:colons/and/slashes@host:1",
    "PYRO:object@[::1]:4444",
    "PYRO:object@[2001:db8::ff]:9090",
    "PYRO:object@./u:/tmp/socket",
    "PYRO:object@./u:/tmp/a path/with blanks @ and at",
    "PYRO:object@./u:relative.sock",
    "PYRO:object@localhost:9090",
    "PYRO:object@localhost:4444\n",
    "PYRONAME:name",
    "PYRONAME:name@host",
    "PYRONAME:name@host:1234",
    "PYRONAME:name@[::1]",
    "PYRONAME:name@[::1]:1234",
    "PYRONAME:name@./u:/tmp/ns",
    "pyroname:Pyro.NameServer@localhost:9091",
    "PYROMETA:one",
    "PYROMETA:one@host:1234",
    "PYROMETA:class:Pyro5.nameserver.NameServer@./u:/tmp/ns",
]


# ------------------------------------------------------------------------------------------------ forms
@pytest.mark.feature("F001", "F002")
def test_the_parts_of_a_direct_uri() -> None:
    uri = URI("PYRO:object@localhost:4444")
    assert (uri.protocol, uri.object, uri.sockname, uri.host, uri.port) == ("PYRO", "object", None, "localhost", 4444)
    assert uri.location == "localhost:4444"
    assert uri.scheme == ""
    assert str(uri) == uri.asString() == "PYRO:object@localhost:4444"
    assert repr(uri).endswith("; PYRO:object@localhost:4444>")
    assert repr(uri).startswith("<pyroplug.core.uri.URI at 0x")


@pytest.mark.feature("F001")
@pytest.mark.parametrize("word", ["PYRO", "pyro", "PyRo"])
def test_the_protocol_word_may_be_in_any_case(word: str) -> None:
    uri = URI(f"{word}:Object@Host:1")
    assert uri.protocol == "PYRO"
    assert (uri.object, uri.host) == ("Object", "Host")


@pytest.mark.feature("F010", "F170")
@pytest.mark.parametrize("address", ["::1", "::", "2001:db8::ff00:42:8329", "fe80::1%eth0"])
def test_an_ipv6_address_has_brackets_in_the_text_only(address: str) -> None:
    uri = URI(f"PYRO:object@[{address}]:3456")
    assert (uri.host, uri.port) == (address, 3456)
    assert uri.location == f"[{address}]:3456"
    assert str(uri) == f"PYRO:object@[{address}]:3456"


@pytest.mark.feature("F011", "F172")
@pytest.mark.parametrize(
    "path", ["/tmp/s", "s", "/a b/c", "/with@at", "/with:colon:1", "\0abstract", "/h\u00e9llo", "/x "]
)
def test_a_unix_path_may_contain_anything(path: str) -> None:
    uri = URI(f"PYRO:object@./u:{path}")
    assert (uri.sockname, uri.host, uri.port) == (path, None, None)
    assert uri.scheme == "u"
    assert uri.location == f"./u:{path}"
    assert str(uri) == f"PYRO:object@./u:{path}"
    assert URI(str(uri)) == uri
    assert URI.isUnixsockLocation(uri.location)
    assert not URI.isUnixsockLocation("localhost:1")


def test_other_transports_have_a_letter_of_their_own() -> None:
    uri = URI("PYRO:object@./m:name")
    assert (uri.scheme, uri.sockname, uri.location) == ("m", "./m:name", "./m:name")
    assert URI(str(uri)) == uri


@pytest.mark.feature("F008")
@pytest.mark.parametrize("text", ["PYRO:x@h:1", "PYRO:x@./u:/tmp/s", "PYRONAME:x", "PYROMETA:a,b"])
def test_a_line_of_a_file_is_a_uri(text: str) -> None:
    assert URI(text + "\n") == URI(text)


def test_the_object_ends_at_the_first_at_sign() -> None:
    assert URI("PYRO:a@./u:/x@y").object == "a"
    assert URI("PYRO:a@./u:/x@y").sockname == "/x@y"


@pytest.mark.feature("F003")
@pytest.mark.parametrize(
    ("text", "fields", "printed"),
    [
        ("PYRONAME:x", ("PYRONAME", "x", None, None, None), "PYRONAME:x"),
        ("PYRONAME:x@host", ("PYRONAME", "x", None, "host", 9090), "PYRONAME:x@host"),
        ("PYRONAME:x@host:9090", ("PYRONAME", "x", None, "host", 9090), "PYRONAME:x@host"),
        ("PYRONAME:x@host:9091", ("PYRONAME", "x", None, "host", 9091), "PYRONAME:x@host:9091"),
        ("PYRONAME:x@[::1]", ("PYRONAME", "x", None, "::1", 9090), "PYRONAME:x@[::1]"),
        ("PYRONAME:x@[::1]:1", ("PYRONAME", "x", None, "::1", 1), "PYRONAME:x@[::1]:1"),
        ("PYRONAME:x@./u:/tmp/ns", ("PYRONAME", "x", "/tmp/ns", None, None), "PYRONAME:x@./u:/tmp/ns"),
        ("PYRO:x@host:9090", ("PYRO", "x", None, "host", 9090), "PYRO:x@host:9090"),
    ],
)
def test_the_port_of_the_name_server_is_understood(text: str, fields: tuple[Any, ...], printed: str) -> None:
    uri = URI(text)
    assert uri.__getstate__() == fields
    assert str(uri) == printed
    assert URI(printed) == uri


@pytest.mark.feature("F272")
def test_tags_are_a_set() -> None:
    uri = URI("PYROMETA:one, two ,three@host:1".replace(" ", ""))
    assert uri.object == {"one", "two", "three"}
    assert str(uri) == "PYROMETA:one,three,two@host:1"
    assert uri == URI("PYROMETA:three,two,one,one@host:1")
    assert hash(uri) == hash(URI("PYROMETA:two,one,three@host:1"))


def test_ports_go_from_0_to_65535() -> None:
    assert URI("PYRO:x@h:0").port == 0
    assert URI("PYRO:x@h:65535").port == 65535


@pytest.mark.feature("F173")
def test_the_uri_of_a_connected_socket() -> None:
    uri = URI(f"PYRO:demo@{CONNECTED_SOCKET}:0")
    assert str(uri) == "PYRO:demo@<<connected-socket>>:0"
    assert (uri.host, uri.port) == ("<<connected-socket>>", 0)
    assert URI(str(uri)) == uri == URI.build("PYRO", "demo", None, CONNECTED_SOCKET, 0)


# ------------------------------------------------------------------------------------------------ refusals
@pytest.mark.feature("F010", "F114")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a form like PYRO:object@host:port"),
        ("nonsense", "expected a form like PYRO:object@host:port"),
        ("PYRO:", "expected a form like PYRO:object@host:port"),
        ("PYRO", "expected a form like PYRO:object@host:port"),
        (":x@h:1", "expected a form like PYRO:object@host:port"),
        ("PYRO:two words@h:1", "expected a form like PYRO:object@host:port"),
        ("HTTP:x@h:1", "expected a form like PYRO:object@host:port"),
        (" PYRO:x@h:1", "expected a form like PYRO:object@host:port"),
        ("PYRO:x@h:1\n\n", "expected a form like PYRO:object@host:port"),
        ("PYRO:x@h\n:1", "expected a form like PYRO:object@host:port"),
        ("PYROX:x@h:1", "unknown protocol 'PYROX', known are PYRO, PYRONAME, PYROMETA"),
        ("PYRO:x", "the location is missing, as in PYRO:x@host:port"),
        ("PYRO:x@host", "the location needs a port, as in host:4444"),
        ("PYRO:x@[::1]", "the location needs a port, as in host:4444"),
        ("PYRO:x@host:", "the port is missing after ':'"),
        ("PYRO:x@[::1]:", "the port is missing after ':'"),
        ("PYRONAME:x@host:", "the port is missing after ':'"),
        ("PYRO:x@host:abc", "invalid port 'abc'"),
        ("PYRO:x@host:-1", "invalid port '-1'"),
        ("PYRO:x@host:65536", "invalid port '65536'"),
        ("PYRO:x@host:99999999999999999999", "expected a number from 0 to 65535"),
        ("PYRO:x@host:1.5", "invalid port '1.5'"),
        ("PYRO:x@host:\u0664", "expected a number from 0 to 65535"),
        ("PYRO:x@host: 1", "the host is missing or has blanks"),
        ("PYRO:x@:1", "the host is missing or has blanks"),
        ("PYRO:x@my host:1", "the host is missing or has blanks"),
        ("PYRO:x@::1:4444", "write ipv6 addresses in brackets, as in [::1]:4444"),
        ("PYRO:x@a:1:2", "write ipv6 addresses in brackets, as in [::1]:4444"),
        ("PYRO:x@[[::1]]:1", "the enclosing brackets are doubled"),
        ("PYRO:x@[::1:1", "expected [address]:port"),
        ("PYRO:x@[]:1", "expected [address]:port"),
        ("PYRO:x@[::1]x:1", "expected [address]:port"),
        ("PYRO:x@[::1]4444", "expected [address]:port"),
        ("PYRO:x@./u:", "expected ./u:path"),
        ("PYRO:x@./u", "expected ./u:path"),
        ("PYRO:x@./:name", "expected ./u:path"),
        ("PYRO:x@./U:name", "expected ./u:path"),
        ("PYROMETA:a,,b", "there is an empty tag"),
        ("PYROMETA:,", "there is an empty tag"),
    ],
)
def test_a_malformed_uri_is_refused_saying_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(URIError) as caught:
        URI(text)
    assert why in str(caught.value)
    assert repr(text) in str(caught.value) or "location" in str(caught.value)
    assert isinstance(caught.value, (PyroError, ValueError))


@pytest.mark.parametrize("thing", [None, 1, b"PYRO:x@h:1", ["PYRO:x@h:1"]])
def test_what_is_no_text_is_a_type_error(thing: Any) -> None:
    with pytest.raises(TypeError, match="a URI is made from a text or a URI, not from"):
        URI(thing)


@given(st.text(max_size=40))
def test_any_text_is_a_uri_or_refused(text: str) -> None:
    for whole in (text, f"PYRO:{text}", f"PYRO:x@{text}", f"PYRONAME:{text}", f"PYROMETA:{text}"):
        try:
            uri = URI(whole)
        except URIError:
            continue
        assert URI(str(uri)) == uri
        assert uri.port is None or 0 <= uri.port <= 65535


# ------------------------------------------------------------------------------------------------ values
ids = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters="@,"), min_size=1, max_size=20
)
hosts = st.one_of(
    st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
paths = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"), min_size=1)
locations = st.one_of(
    st.builds(lambda host, port: f"{host}:{port}", hosts, st.integers(0, 65535)), paths.map(lambda path: f"./u:{path}")
)


@given(st.sampled_from(["PYRO", "PYRONAME", "PYROMETA"]), ids, locations)
def test_a_printed_uri_is_read_as_the_same(protocol: str, name: str, location: str) -> None:
    uri = URI(f"{protocol}:{name}@{location}")
    assert URI(str(uri)) == uri
    assert str(URI(str(uri))) == str(uri)
    assert hash(URI(str(uri))) == hash(uri)


@pytest.mark.feature("F002", "F302")
@pytest.mark.parametrize("text", VALID)
def test_copies_are_equal_and_independent(text: str) -> None:
    uri = URI(text)
    for other in (URI(uri), copy.copy(uri), copy.deepcopy(uri), pickle.loads(pickle.dumps(uri))):
        assert other is not uri
        assert other == uri
        assert hash(other) == hash(uri)
        assert other.__getstate__() == uri.__getstate__()
        other.object = "changed"
        assert other != uri


def test_a_uri_is_equal_to_uris_only() -> None:
    uri = URI("PYRO:x@h:1")
    assert uri != "PYRO:x@h:1"
    assert uri.__eq__("PYRO:x@h:1") is NotImplemented
    assert uri != URI("PYRO:x@h:2")
    assert uri != URI("PYRO:y@h:1")
    assert {uri: 1}[URI("PYRO:x@h:1")] == 1


@pytest.mark.parametrize("state", [None, (), ("PYRO",), (1, 2, 3, 4, 5, 6), 7])
def test_a_state_of_another_shape_is_refused(state: Any) -> None:
    with pytest.raises(URIError, match="expected 5 parts"):
        URI.__new__(URI).__setstate__(state)


def test_uris_take_no_further_attributes() -> None:
    with pytest.raises(AttributeError):
        URI("PYRO:x@h:1").user = 1  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ locations
@pytest.mark.parametrize(
    ("location", "default", "expected"),
    [
        ("host:1", None, (None, "host", 1)),
        ("host", 9090, (None, "host", 9090)),
        ("[::1]:1", None, (None, "::1", 1)),
        ("[::1]", 9090, (None, "::1", 9090)),
        ("./u:/tmp/s", None, ("/tmp/s", None, None)),
        ("./m:name", None, ("./m:name", None, None)),
    ],
)
def test_a_location_alone_is_understood(location: str, default: int | None, expected: tuple[Any, ...]) -> None:
    assert parse_location(location, default) == expected


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_every_ipv6_address(address: ipaddress.IPv6Address, port: int) -> None:
    assert parse_location(f"[{address}]:{port}", None) == (None, str(address), port)


# ------------------------------------------------------------------------------------------------ the oracle
@pytest.mark.interop
@pytest.mark.parametrize("text", VALID)
def test_pyro5_reads_the_same_uri(text: str) -> None:
    ours, theirs = URI(text), Pyro5.core.URI(text)
    assert ours.__getstate__() == theirs.__getstate__()
    assert ours.location == (theirs.location or "")
    if ours.protocol == "PYRO":
        assert str(ours) == str(theirs)
    assert Pyro5.core.URI(str(ours)).__getstate__() == ours.__getstate__()
    assert URI(str(theirs)) == ours


@pytest.mark.interop
@given(
    st.sampled_from(["PYRO", "pyroname", "PyroMeta"]),
    ids,
    locations.filter(lambda text: ":" not in text[4:] or text[0] != "."),
)
def test_pyro5_agrees_about_any_valid_uri(protocol: str, name: str, location: str) -> None:
    text = f"{protocol}:{name}@{location}"
    ours, theirs = URI(text), Pyro5.core.URI(text)
    assert ours.__getstate__() == theirs.__getstate__()
    if ours.protocol == "PYRO":
        assert str(ours) == str(theirs)


@pytest.mark.interop
@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "PYRO:", "PYRO:x", "PYROX:x@h:1", "PYRO:x@h", "PYRO:x@h:", "PYRO:x@h:abc", "PYRO:x@[[::1]]:1", "PYRO:x@./u:"],
)  # fmt: skip
def test_what_pyro5_refuses_is_refused(text: str) -> None:
    with pytest.raises(Pyro5.errors.PyroError):
        Pyro5.core.URI(text)
    with pytest.raises(URIError):
        URI(text)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("text", "accepted_by_us"),
    [
        ("PYRO:x@h:-1", False),
        ("PYRO:x@h:70000", False),
        ("PYRO:x@[::1]:12 and more", False),
        ("PYRO:x@:1", False),
        ("PYRO:x@./u:/with:colon", True),
    ],
)
def test_where_ours_differs_from_pyro5(text: str, accepted_by_us: bool) -> None:
    def accepts(cls: Any) -> bool:
        try:
            cls(text)
        except (PyroError, Pyro5.errors.PyroError):
            return False
        return True

    assert accepts(URI) is accepted_by_us
    assert accepts(Pyro5.core.URI) is not accepted_by_us


def test_uris_of_one_text_are_independent() -> None:
    first, second = URI("PYROMETA:one,two"), URI("PYROMETA:one,two")
    first.object.add("three")
    assert second.object == {"one", "two"}
    assert URI("PYROMETA:one,two").object == {"one", "two"}
    direct = URI("PYRO:thing@host:1")
    direct.host = "other"
    assert URI("PYRO:thing@host:1").host == "host"
