"""A proxy whose calls are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Generator, Mapping, Sequence
from typing import Any

from pyroplug.core.client import Proxy
from pyroplug.core.connection import ClientConnection, Lost
from pyroplug.core.errors import CommunicationError, ConnectionClosedError, PyroError
from pyroplug.core.kernel import Kernel
from pyroplug.core.members import is_private
from pyroplug.core.proxy import ProxyBase
from pyroplug.core.uri import URI
from pyroplug.core.wire import FLAG_ONEWAY

from .connection import AsyncConnection

__all__ = ["AsyncBatch", "AsyncProxy"]


class _Link(Proxy):
    """The plain proxy inside: it knows how to connect, and keeps what is known of the object."""

    _pyroConnectionClass = AsyncConnection


class Pending(Awaitable[Any], AsyncIterator[Any]):
    """A call that was not made yet: await it, or iterate over its items with ``async for``."""

    __slots__ = ("_items", "_make")

    def __init__(self, make: Any) -> None:
        self._make = make
        self._items: AsyncIterator[Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        result: Generator[Any, Any, Any] = self._make().__await__()
        return result

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._items is None:
            result = await self._make()
            if not isinstance(result, AsyncIterator):
                raise TypeError(f"the call has no items to iterate over: it returned {type(result).__name__}")
            self._items = result
        return await anext(self._items)


class Member:
    """A member of a remote object: call it if it is a method, await it if it is an attribute."""

    __slots__ = ("_name", "_proxy")

    def __init__(self, proxy: AsyncProxy, name: str) -> None:
        self._proxy = proxy
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Pending:
        return Pending(lambda: self._proxy._pyroInvoke(self._name, args, kwargs))

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._proxy._pyroGet(self._name).__await__()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"remote members have no attributes before they are awaited: '{self._name}.{name}'; "
            f"write (await proxy.{self._name}).{name} if {self._name} is an attribute"
        )

    def __repr__(self) -> str:
        return f"<Member {self._name} of {self._proxy!r}>"


class AsyncProxy:
    """A remote object for tasks: ``await proxy.method(...)``, ``await proxy.attribute``, ``async for x in proxy.items()``.

    Any number of tasks of one event loop may share it; with peers that can, all their calls are in flight together.
    Cancelling a task gives up its call, and only that.  Nothing is connected before the first use.

    ``async with`` releases it at the end; ``await proxy._pyroRelease()`` does it by hand.  Options are those of
    :class:`~pyroplug.core.client.Proxy`, by the same names: ``_pyroTimeout`` (seconds), ``_pyroSerializer``,
    ``_pyroHandshake``, ``_pyroMaxRetries``, ``_pyroOneway``.

    :param uri: a URI, or a plain proxy to take it and the options from
    :param kernel: whose plugins and settings to use; the proxy's, or the default kernel if not given
    :raises URIError: the text is no URI
    :raises PluginError: the plugin ``aio`` is off
    """

    _link: _Link

    def __init__(self, uri: str | URI | ProxyBase, *, kernel: Kernel | None = None) -> None:
        if isinstance(uri, ProxyBase):
            link = _Link(uri._pyroUri, kernel=kernel or uri._pyroKernel)
            link._pyroRestore(uri.__getstate__(), link._pyroKernel)
            link._pyroHandshake, link._pyroTimeout = uri._pyroHandshake, uri._pyroTimeout
        else:
            link = _Link(uri, kernel=kernel)
        link._pyroKernel.require("aio")
        self.__dict__.update(_link=link, _connecting=asyncio.Lock())

    # ----------------------------------------------------------------- members
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_pyro"):
            return getattr(self.__dict__["_link"], name)
        if is_private(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return Member(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(
                f"a remote attribute cannot be set without awaiting: await proxy._pyroSet({name!r}, ...)"
            )
        setattr(self._link, name, value)

    async def _pyroGet(self, name: str) -> Any:
        """The value of a remote attribute.

        :raises AttributeError: the object has none of that name, or it is a method
        """
        link = self._link
        await self._pyroBind()
        if link._pyroMetadataKnown and name not in link._pyroAttrs:
            what = "is a method: call it" if name in link._pyroMethods else "is no exposed attribute"
            raise AttributeError(f"{name!r} of remote object '{link._pyroUri}' {what}")
        return await self._pyroInvoke("__getattr__", (name,), {})

    async def _pyroSet(self, name: str, value: Any) -> None:
        """Set a remote attribute.

        :raises AttributeError: the object has none of that name
        """
        link = self._link
        await self._pyroBind()
        if link._pyroMetadataKnown and name not in link._pyroAttrs:
            raise AttributeError(f"remote object '{link._pyroUri}' has no exposed attribute '{name}'")
        await self._pyroInvoke("__setattr__", (name, value), {})

    def __getitem__(self, index: Any) -> Pending:
        return Pending(lambda: self._pyroInvoke("__getitem__", (index,), {}))

    # ----------------------------------------------------------------- calls
    async def _pyroInvoke(
        self,
        methodname: str,
        vargs: Sequence[Any],
        kwargs: Mapping[str, Any],
        flags: int = 0,
        objectId: str | None = None,
    ) -> Any:
        """Make one remote call.

        :raises CommunicationError: the connection failed; it is closed, the next call opens a new one
        :raises AttributeError: the object has no such method
        """
        link = self._link
        attempt = 0
        while True:
            connection: AsyncConnection | None = None
            error: CommunicationError
            try:
                connection = await self._pyroConnected()
                if objectId is None:
                    self._check(methodname)
                if methodname in link._pyroOneway:
                    flags |= FLAG_ONEWAY
                result = await connection.call_in_task(
                    objectId or connection.objectId, methodname, vargs, kwargs, flags, link._pyroRawWireResponse
                )
            except Lost as lost:
                assert connection is not None
                if connection.gone:
                    link._pyroDrop(connection)
                if not lost.sent and isinstance(lost.error, ConnectionClosedError):
                    continue  # released by another task: nothing was tried
                error = lost.error
            except CommunicationError as exc:
                if connection is not None:
                    raise  # the server's answer, or a mistake in the arguments
                error = exc
            else:
                in_task = getattr(type(result), "_pyroInTask", None)
                return result if in_task is None else in_task(result, self._pyroConnected)
            attempt += 1
            try:
                # policies wait between attempts, in the blocking way
                if not await asyncio.to_thread(self._again, methodname, error, attempt):
                    raise error
            finally:
                del error

    def _again(self, method: str, error: CommunicationError, attempt: int) -> bool:
        link = self._link
        return any(policy(link, method, error, attempt) for policy in link._pyroKernel.policies)

    def _check(self, method: str) -> None:
        link = self._link
        if not link._pyroMetadataKnown or method in link._pyroMethods or method.startswith(("__", "<")):
            return
        if method in link._pyroAttrs:
            raise AttributeError(
                f"{method!r} of remote object '{link._pyroUri}' is an attribute: await it without calling"
            )
        raise AttributeError(f"remote object '{link._pyroUri}' has no exposed attribute or method '{method}'")

    # ----------------------------------------------------------------- the connection
    async def _pyroConnected(self) -> AsyncConnection:
        """The connection, made if there is none."""
        link = self._link
        connection = link._pyroConnection
        if connection is None or connection.gone:
            async with self.__dict__["_connecting"]:
                connection = link._pyroConnection
                if connection is not None and connection.gone:
                    link._pyroDrop(connection)
                    connection = None
                if connection is None:
                    connection = await self._connect()
        assert isinstance(connection, AsyncConnection)
        return connection

    async def _connect(self) -> AsyncConnection:
        link = self._link
        task = asyncio.ensure_future(asyncio.to_thread(link._pyroConnect))
        try:
            connection = await asyncio.shield(task)
        except asyncio.CancelledError:
            # the thread goes on; what it gets must not stay open
            task.add_done_callback(_close)
            raise
        assert isinstance(connection, AsyncConnection)
        try:
            if not link._pyroMetadataKnown and link._pyroKernel.metadata_source is not None:
                await asyncio.to_thread(link._pyroGetMetadata)
            connection.attach(asyncio.get_running_loop())
        except BaseException:
            link._pyroDrop(connection)
            raise
        return connection

    async def _pyroBind(self) -> bool:
        """Connect now; False when it was connected already."""
        connected = self._link._pyroConnection is not None
        await self._pyroConnected()
        return not connected

    async def _pyroRelease(self) -> None:
        """Close the connection; the proxy stays usable and connects again when used."""
        link = self._link
        connection = link._pyroConnection
        if isinstance(connection, AsyncConnection):
            connection.release()
            link._pyroDrop(connection)

    async def __aenter__(self) -> AsyncProxy:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pyroRelease()

    # ----------------------------------------------------------------- what else a proxy can
    def _pyroBatch(self) -> AsyncBatch:
        """Collect calls, and make them all at once with ``await batch()``.

        :raises AttributeError: the plugin ``batch`` is off
        """
        return AsyncBatch(self, self._link._pyroBatch())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncProxy) and other._link == self._link

    def __hash__(self) -> int:
        return hash(self._link)

    def __repr__(self) -> str:
        return repr(self.__dict__["_link"]).replace("_Link", "AsyncProxy")

    def __enter__(self) -> Any:
        raise TypeError("an AsyncProxy is used with 'async with'")

    def __exit__(self, *exc_info: object) -> None:
        raise PyroError("an AsyncProxy is used with 'async with'")


def _close(made: asyncio.Task[ClientConnection]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().close()


class AsyncBatch:
    """Collects calls for an :class:`AsyncProxy`; ``await batch()`` makes them and gives an iterator over the results."""

    def __init__(self, proxy: AsyncProxy, batch: Any) -> None:
        self._proxy = proxy
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    async def __call__(self, oneway: bool = False) -> Any:
        """Make the calls that were collected; None when ``oneway``."""
        return await self._batch._pyroInTask(self._proxy._pyroInvoke, oneway)

    def __len__(self) -> int:
        return len(self._batch)
