"""Name servers found by DNS-SD, over the loopback interface."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from pyroplug.api import ConfigError, NamingError, PluginError, locate_ns, start_ns
from pyroplug.core.kernel import Kernel
from pyroplug.testing.kernels import make_kernel
from testkit.timeouts import PATIENCE

MakeKernel = Callable[..., Kernel]

LOOPBACK = ["127.0.0.1"]

OURS = f"t{uuid.uuid4().hex[:10]}"
"""The multicast group is everybody's: this keeps tests apart that run at the same time."""


def dnssd_kernel(**settings: Any) -> Kernel:
    own: dict[str, Any] = {"NS_DNSSD_INTERFACES": LOOPBACK, "NS_DNSSD_SERVICE": OURS, "NS_HOST": ""}
    return make_kernel(extra_plugins=["naming_dnssd"], **{**own, **settings})


def test_a_name_server_announces_itself_and_is_found() -> None:
    uri, daemon, _ = start_ns("127.0.0.1", 0, kernel=dnssd_kernel())
    thread = threading.Thread(target=daemon.requestLoop)
    thread.start()
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with locate_ns(kernel=dnssd_kernel(NS_DISCOVERY="first", NS_TIMEOUT=PATIENCE)) as found:
                    assert found._pyroUri == uri
                break
            except NamingError:  # datagrams get lost, and on a busy machine two seconds are not long
                assert time.monotonic() < end
    finally:
        daemon.shutdown()
        thread.join()
    # it has said goodbye
    with pytest.raises(NamingError, match="DNS-SD: "):
        locate_ns(kernel=dnssd_kernel())


def test_without_an_answer_that_is_told_in_time() -> None:
    with pytest.raises(NamingError, match="DNS-SD: no answer"):
        locate_ns(kernel=dnssd_kernel(NS_TIMEOUT=0.4))
    with pytest.raises(NamingError, match="NS_DNSSD_INTERFACES"):
        locate_ns(kernel=dnssd_kernel(NS_DNSSD_INTERFACES=["192.0.2.1"]))


def test_an_entry_that_leads_nowhere_is_passed_over() -> None:
    import zeroconf

    with zeroconf.Zeroconf(interfaces=LOOPBACK) as network:
        for number, uri in enumerate(("nonsense", "PYRONAME:x", "PYRO:Pyro.NameServer@127.0.0.1:1")):
            info = zeroconf.ServiceInfo(
                f"_{OURS}._tcp.local.",
                f"odd{number}._{OURS}._tcp.local.",
                port=5,
                properties={"uri": uri},
                server="odd.local.",
                parsed_addresses=["127.0.0.1"],
            )
            network.register_service(info)
        with pytest.raises(NamingError, match=r"DNS-SD: (127\.0\.0\.1:1 answered, but: |no answer)"):
            locate_ns(kernel=dnssd_kernel())
        network.unregister_all_services()


def test_a_name_server_that_nobody_can_reach_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyroplug.plugins.naming.dnssd.Announcement", None)
    for host in ("127.0.0.1", "::1") if socket.has_ipv6 else ("127.0.0.1",):
        start_ns(host, 0, kernel=dnssd_kernel(NS_DNSSD_INTERFACES=[]))[1].close()


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match="needs the package zeroconf"):
        dnssd_kernel()


@pytest.mark.parametrize("name", ["", "x" * 16, "-x", "x-", "a.b", "ä"])
def test_names_of_services_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=r"NS_DNSSD_SERVICE: .* is no service name"):
        dnssd_kernel(NS_DNSSD_SERVICE=name)
