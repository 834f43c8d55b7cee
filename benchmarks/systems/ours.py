"""pyroplug itself: as it comes, and two server loops with three serializers each (serpent's is that for old peers)."""

from __future__ import annotations

import functools
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from . import Client, Ready, Served, Spec, rows_of
from ._pyro import traffic

SPECS = [
    Spec("pyroplug-default", "ours", peer="pyro5-thread-serpent"),
    *(
        Spec(
            f"pyroplug-{loop}-{name}",
            "ours",
            {"loop": loop, "serializer": name},
            peer=f"pyro5-thread-{name}",
            rows=rows_of(name),
        )
        for loop in ("thread", "multiplex")
        for name in ("msgpack", "serpent", "json")
    ),
    Spec(
        "pyroplug-least-msgpack",
        "ours",
        {"loop": "thread", "serializer": "msgpack", "plugins": "thread,tcp,msgpack,metadata"},
        peer="pyro5-thread-msgpack",
        rows=("echo-42",),
        note="a kernel with only what the call needs",
    ),
]


def missing() -> str | None:
    return None


def make_kernel(spec: Spec) -> Any:
    from pyroplug.api import Kernel

    settings = {}
    off = _absent(spec.tree) if spec.tree else []
    if spec.options:
        settings = {"SERVERTYPE": spec.options["loop"], "SERIALIZER": spec.options["serializer"]}
        off = [*off, "compact"]
        if "plugins" in spec.options:
            return Kernel(plugins=spec.options["plugins"].split(","), settings=settings, environ={})
    return Kernel(settings=settings, environ={"PYRO_DISABLE_PLUGINS": ",".join(off)})


def _absent(tree: str) -> list[str]:
    """Plugins that are installed and that another (older) tree does not have."""
    return [
        point.name
        for point in entry_points(group="pyroplug.plugins")
        if not any(Path(tree).glob(f"*/{point.module.replace('.', '/')}.py"))
    ]


def serve(spec: Spec, address: str | None, ready: Ready) -> None:
    from pyroplug.api import Daemon, expose, oneway

    if "plugins" not in spec.options:
        oneway(Served.fire)
    where: dict[str, Any] = {"host": "127.0.0.1"} if address is None else {"unixsocket": address}
    with Daemon(kernel=make_kernel(spec), **where) as daemon:
        ready(str(daemon.register(expose(Served)(), "echo")))
        daemon.requestLoop()


@functools.cache
def _client_kernel(tree: str, options: tuple[tuple[str, str], ...]) -> Any:
    return make_kernel(Spec("", "", dict(options), tree=tree))


def connect(spec: Spec, location: str) -> Client:
    from pyroplug.api import BatchProxy, Proxy, SerializedBlob

    proxy: Any = Proxy(location, kernel=_client_kernel(spec.tree, tuple(spec.options.items())))
    client = Client(proxy, proxy._pyroRelease, batch=partial(BatchProxy, proxy), blob=SerializedBlob)
    if spec.options.get("serializer") == "msgpack":
        client.traffic = traffic(location)
        client.awaited = partial(_awaited, proxy)
    return client


async def _awaited(proxy: Any) -> _Awaited:
    from pyroplug.api import AsyncProxy

    return _Awaited(AsyncProxy(proxy))


class _Awaited:
    def __init__(self, proxy: Any) -> None:
        self.echo = proxy.echo
        self.close = proxy._pyroRelease
