"""Name servers that run in threads, and kernels that look for them there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pytest

from pyroplug.core.kernel import Kernel
from pyroplug.core.uri import URI
from pyroplug.plugins.naming.nsdaemon import NameServerDaemon, start_ns
from pyroplug.plugins.naming.table import Responder
from pyroplug.testing.kernels import make_kernel
from testkit.timeouts import PATIENCE


class RunningNameServer:
    """A name server on a free port of 127.0.0.1, serving in a thread; capitals are settings."""

    uri: URI
    daemon: NameServerDaemon
    responder: Responder | None

    def __init__(self, host: Any = "127.0.0.1", port: int = 0, **options: Any) -> None:
        settings = {name: options.pop(name) for name in list(options) if name.isupper()}
        self.kernel = make_kernel(**settings)
        self.uri, self.daemon, self.responder = start_ns(host, port, kernel=self.kernel, **options)
        self._thread = threading.Thread(target=self.daemon.requestLoop, name="name-server")
        self._thread.start()

    @property
    def port(self) -> int:
        """Its TCP port."""
        return int(self.daemon.sock.getsockname()[1])

    def names(self) -> dict[str, str]:
        """What is registered, without the name server itself."""
        names = dict(self.daemon.nameserver.list())
        names.pop("Pyro.NameServer", None)
        return names

    def stop(self) -> None:
        """Shut it down."""
        if self.responder is not None:
            self.responder.close()
        self.daemon.shutdown()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.kernel.close()

    def __enter__(self) -> RunningNameServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@pytest.fixture
def run_ns() -> Iterator[Callable[..., RunningNameServer]]:
    """Starts name servers and stops them in the end."""
    with contextlib.ExitStack() as stack:

        def run(*args: Any, **options: Any) -> RunningNameServer:
            return stack.enter_context(RunningNameServer(*args, **options))

        yield run


@pytest.fixture
def ns(run_ns: Callable[..., RunningNameServer]) -> RunningNameServer:
    """One name server."""
    return run_ns()


@pytest.fixture
def new_kernel() -> Iterator[Callable[..., Kernel]]:
    """Makes kernels and closes them in the end."""
    kernels: list[Kernel] = []

    def make(*args: Any, **options: Any) -> Kernel:
        kernels.append(make_kernel(*args, **options))
        return kernels[-1]

    yield make
    for kernel in reversed(kernels):
        kernel.close()


@pytest.fixture
def kernel(ns: RunningNameServer, new_kernel: Callable[..., Kernel]) -> Kernel:
    """A kernel that finds this name server."""
    return new_kernel(NS_PORT=ns.port, NS_HOST="127.0.0.1")
