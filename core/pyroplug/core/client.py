"""The proxy that users import: the call tower's, with the default kernel."""

from __future__ import annotations

from typing import cast

from .kernel import default_kernel
from .proxy import ClientRuntime, ProxyBase

__all__ = ["Proxy"]


class Proxy(ProxyBase):
    """A remote object; see :class:`~pyroplug.core.proxy.ProxyBase` for everything it can do.

    :param uri: where the object is, a text or a URI; with ``connected_socket`` just the object's name
    :param connected_socket: a socket that is connected to a daemon already; never closed by the proxy
    :param kernel: whose plugins and settings to use; the default kernel if not given
    :raises URIError: the text is no URI
    """

    def _pyroDefaultKernel(self) -> ClientRuntime:
        return cast("ClientRuntime", default_kernel())
