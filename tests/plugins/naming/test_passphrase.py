"""A name server that wants a passphrase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyroplug.api import ConfigError, NamingError, Proxy
from pyroplug.plugins.naming.locate import locate_ns
from pyroplug.testing.kernels import make_kernel

from .conftest import RunningNameServer

SAID = "open, Sesame \N{LATIN SMALL LETTER E WITH ACUTE}"

pytestmark = pytest.mark.feature("F187")


def ask(name_server: RunningNameServer, **settings: Any) -> int:
    """What a client with these settings gets."""
    kernel = make_kernel(**settings)
    try:
        with locate_ns("127.0.0.1", name_server.port, kernel=kernel) as ns:
            return int(ns.count())
    finally:
        kernel.close()


def test_who_says_it_is_let_in_and_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(SAID + "\n", encoding="utf-8")
    with RunningNameServer(NS_PASSPHRASE_FILE=str(file)) as name_server:
        assert ask(name_server, NS_PASSPHRASE=SAID) == 1
        assert ask(name_server, NS_PASSPHRASE_FILE=str(file)) == 1
        for settings in ({}, {"NS_PASSPHRASE": "open, sesame"}, {"NS_PASSPHRASE": SAID + "x"}):
            with pytest.raises(NamingError, match="wants a passphrase"):
                ask(name_server, **settings)
        assert ask(name_server, NS_PASSPHRASE=SAID) == 1


def test_names_are_resolved_with_it_and_daemons_publish_with_it() -> None:
    with RunningNameServer(NS_PASSPHRASE=SAID) as name_server:
        kernel = make_kernel(NS_HOST="127.0.0.1", NS_PORT=name_server.port, NS_PASSPHRASE=SAID)
        with Proxy("PYRONAME:Pyro.NameServer", kernel=kernel) as ns:
            assert ns.count() == 1
        kernel.close()


def test_what_a_program_says_itself_is_said() -> None:
    """As a Pyro5 program does, which knows nothing of the setting."""
    kernel = make_kernel()
    with RunningNameServer(NS_PASSPHRASE=SAID) as name_server, Proxy(name_server.uri, kernel=kernel) as proxy:
        proxy._pyroHandshake = SAID
        assert proxy.count() == 1


@pytest.mark.parametrize("handshake", [None, 5, ["a"], {"pass": "word"}, "hello", ""])
def test_other_values_are_refused(handshake: Any) -> None:
    kernel = make_kernel()
    with RunningNameServer(NS_PASSPHRASE=SAID) as name_server, Proxy(name_server.uri, kernel=kernel) as proxy:
        proxy._pyroHandshake = handshake
        with pytest.raises(Exception, match="wants a passphrase"):
            proxy._pyroBind()


def test_it_is_said_to_name_servers_only(tmp_path: Path) -> None:
    seen: list[Any] = []

    from pyroplug.api import Daemon, expose
    from pyroplug.testing.kernels import Served

    class Curious(Daemon):
        def validateHandshake(self, conn: Any, data: Any) -> Any:
            seen.append(data)
            return "hello"

    @expose
    class Thing:
        def echo(self, value: Any) -> Any:
            return value

    with Served("tcp4", settings={"NS_PASSPHRASE": SAID}, daemon_class=Curious) as served:
        served.publish(Thing(), "thing")
        with served.proxy("thing") as proxy:
            assert proxy.echo(1) == 1
    assert set(seen) == {"hello"}


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read"), (b"", "is empty"), (b"\xff\xfe\x00", "no text in UTF-8")]
)
def test_a_file_that_does_not_do_is_told_at_the_start(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "passphrase"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"NS_PASSPHRASE_FILE.*{problem}"):
        make_kernel(NS_PASSPHRASE_FILE=str(file))
