"""Name servers that announce themselves by DNS-SD (also called Zeroconf or Bonjour), and are found that way.

Needs the package ``zeroconf`` (``pip install pyroplug[zeroconf]``) and has to be named (``PYRO_PLUGINS=+naming_dnssd``) at
both ends.  As with broadcasts, anybody on the network segment can answer.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyroplug.core.errors import CommunicationError, NamingError, PluginError, URIError
from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting, Settings
from pyroplug.core.uri import URI

from .table import NAMESERVER_NAME, Closeable, Search, naming_of

if TYPE_CHECKING:
    import zeroconf

__all__ = ["PLUGIN", "Announcement", "DnsSd"]

PLUGIN = PluginInfo(
    "naming_dnssd", "finds and announces name servers by DNS-SD (zeroconf)", requires=("naming",), opt_in=True
)

PATIENCE = 2.0
"""Seconds in which the first answer is waited for."""
GATHERING = 0.25
"""Seconds after it in which others are."""


def _service(settings: Settings) -> str:
    return f"_{settings.NS_DNSSD_SERVICE}._tcp.local."


def _open(settings: Settings) -> zeroconf.Zeroconf:
    import zeroconf

    for address in settings.NS_DNSSD_INTERFACES:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))  # zeroconf fails as well where we lack the address, but leaves a socket behind
    interfaces = settings.NS_DNSSD_INTERFACES or zeroconf.InterfaceChoice.Default
    return zeroconf.Zeroconf(interfaces=interfaces, ip_version=zeroconf.IPVersion.V4Only)


class Announcement:
    """A name server's entry.

    :raises NamingError: it cannot be announced
    """

    def __init__(self, uri: URI, address: str, settings: Settings) -> None:
        import zeroconf

        name = f"pyroplug-{socket.gethostname().partition('.')[0]}-{uri.port}"
        service = _service(settings)
        info = zeroconf.ServiceInfo(
            service,
            f"{name}.{service}",
            port=uri.port,
            properties={"uri": str(uri)},
            server=f"{name}.local.",
            parsed_addresses=[address],
        )
        try:
            self._zeroconf = _open(settings)
            try:
                # a name that is taken is that of another name server, with the same port on a machine of the same name
                self._zeroconf.register_service(info, allow_name_change=True)
            except BaseException:
                self._zeroconf.close()
                raise
        except (OSError, zeroconf.Error) as exc:
            raise NamingError(f"the name server cannot be announced by DNS-SD: {exc!r} (NS_DNSSD_INTERFACES)") from exc

    def close(self) -> None:
        """Take the entry back."""
        self._zeroconf.unregister_all_services()
        self._zeroconf.close()


class DnsSd:
    """Asks for name servers."""

    name = "DNS-SD"
    order = 28

    def locate(self, search: Search) -> Sequence[URI]:
        """All that answered."""
        import zeroconf

        service = _service(search.kernel.settings)
        found: dict[str, URI | None] = {}
        names: list[str] = []

        def heard(state_change: zeroconf.ServiceStateChange, name: str, **rest: Any) -> None:
            if state_change is not zeroconf.ServiceStateChange.Removed:
                names.append(name)

        try:
            network = _open(search.kernel.settings)
        except OSError as exc:
            raise CommunicationError(f"{exc} (NS_DNSSD_INTERFACES)") from exc
        try:
            browser = zeroconf.ServiceBrowser(network, service, handlers=[heard])
            end = time.monotonic() + min(PATIENCE, search.left())
            while (left := end - time.monotonic()) > 0:
                for name in names[:]:
                    if name not in found:
                        found[name] = _uri_of(network.get_service_info(service, name, timeout=int(1000 * left)))
                        end = min(end, time.monotonic() + GATHERING)
                time.sleep(min(left, 0.02))
            browser.cancel()
        finally:
            network.close()
        uris = [uri for uri in found.values() if uri is not None]
        if not uris:
            raise CommunicationError("no answer")
        return list(dict.fromkeys(uris))


def _uri_of(info: zeroconf.ServiceInfo | None) -> URI | None:
    """What an entry says; whoever wrote it may be anybody."""
    text = info.properties.get(b"uri") if info is not None else None
    try:
        uri = URI((text or b"").decode("ascii"))
    except (URIError, UnicodeDecodeError):
        return None
    return uri if uri.protocol == "PYRO" else None


def _announce(daemon: Any) -> Closeable | None:
    """An entry for a name server that others can reach over IPv4."""
    sock = daemon.sock
    if sock is None or sock.family != socket.AF_INET:
        return None
    settings = daemon.kernel.settings
    bound = sock.getsockname()[0]
    if bound.startswith("127.") and not any(address.startswith("127.") for address in settings.NS_DNSSD_INTERFACES):
        return None
    uri = daemon.uriFor(NAMESERVER_NAME, nat=False)
    return Announcement(uri, bound if bound != "0.0.0.0" else socket.gethostbyname(uri.host), settings)


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """Where, and for whom."""
    for setting in (
        Setting("NS_DNSSD_INTERFACES", list, [], "addresses of the interfaces for DNS-SD; none: all", PLUGIN.name),
        Setting("NS_DNSSD_SERVICE", str, "pyroplug-ns", "service name; another one keeps installations apart",
                PLUGIN.name, check=_service_name),
    ):  # fmt: skip
        schema.add(setting)


def _service_name(text: str) -> str | None:
    plain = text.isascii() and text.replace("-", "").isalnum() and text.strip("-") == text
    return None if plain and len(text) <= 15 else "is no service name: at most 15 letters, digits and hyphens inside"


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """A way to find name servers, and to be found."""
    import importlib.util

    if importlib.util.find_spec("zeroconf") is None:
        raise PluginError("the plugin 'naming_dnssd' needs the package zeroconf: pip install zeroconf", PLUGIN.name)
    naming = naming_of(kernel)
    naming.locators.append(DnsSd())
    naming.announcers.append(_announce)
