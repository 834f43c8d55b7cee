"""The proxy that users import: the call tower's, with the default kernel."""

from __future__ import annotations

from typing import cast

from .kernel import default_kernel
from .proxy import ClientRuntime, ProxyBase

__all__ = ["Proxy"]


class Proxy(ProxyBase):
    __doc__ = ProxyBase.__doc__

    def _pyroDefaultKernel(self) -> ClientRuntime:
        return cast("ClientRuntime", default_kernel())
