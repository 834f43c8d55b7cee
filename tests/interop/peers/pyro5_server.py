"""A real Pyro5 server: ``pyro5_server.py SERVERTYPE UNIXSOCKET`` or ``pyro5_server.py pair DESCRIPTOR``.

Prints one line of JSON, the URIs by transport, and serves until its standard input ends.
"""

# ruff: noqa: T201 - what it prints are its URIs
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import json
import socket
import sys
import threading
import warnings
from typing import Any

import Pyro5.api
import Pyro5.errors


class CustomError(Exception):
    pass


CustomError.__module__ = "mymod"


@Pyro5.api.expose
class Sub:
    def hi(self, name: Any) -> Any:
        return f"hi {name}"


@Pyro5.api.expose
class Items:
    def __len__(self) -> Any:
        return 3

    def __getitem__(self, index: Any) -> Any:
        return ["a", "b", "c"][index]


class Hidden:
    def secret(self) -> Any:
        return 1


@Pyro5.api.expose
class Demo:
    def __init__(self) -> None:
        self._value = 1
        self._fired = threading.Event()
        self._sub = Sub()
        self._marshalled = Sub()  # marshal never makes proxies, and makes Pyro5 forget whose the object is

    def add(self, a: Any, b: Any = 0) -> Any:
        return a + b

    def echo(self, value: Any) -> Any:
        return value

    def kwargs(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    def nothing(self) -> Any:
        pass

    def boom(self) -> Any:
        return 1 / 0

    def boom_attributes(self) -> Any:
        error = ValueError("bad", 42)
        error.extra = "info"  # type: ignore[attr-defined]
        raise error

    def boom_pyro(self) -> Any:
        raise Pyro5.errors.NamingError("unknown name: x")

    def boom_custom(self) -> Any:
        raise CustomError("mine", 7)

    def boom_stop(self) -> Any:
        raise StopIteration("over")

    @Pyro5.api.oneway
    def fire(self, number: Any) -> Any:
        self._value = number
        self._fired.set()

    def fired(self, timeout: Any) -> Any:
        done = self._fired.wait(timeout)
        self._fired.clear()
        return done and self._value

    @property
    def value(self) -> Any:
        return self._value

    @value.setter
    def value(self, new: Any) -> Any:
        self._value = new

    @property
    def readonly(self) -> Any:
        return "fixed"

    @classmethod
    def by_class(cls) -> Any:
        return cls.__name__

    @staticmethod
    def by_static(a: Any) -> Any:
        return a * 2

    def call_back(self, proxy: Any, number: Any) -> Any:
        with proxy:
            return proxy.add(number, 1)

    def kind(self, value: Any) -> Any:
        return type(value).__name__

    def sub(self) -> Any:
        return self._marshalled if Pyro5.api.current_context.serializer_id == 2 else self._sub

    def uri(self) -> Any:
        return Pyro5.api.URI("PYRO:abc@localhost:1234")

    def context(self) -> Any:
        context = Pyro5.api.current_context
        context.response_annotations = {"RESP": b"reply-note"}
        return {
            "correlation": str(context.correlation_id),
            "annotations": {key: bytes(value).decode() for key, value in context.annotations.items()},
            "serializer": context.serializer_id,
            "seq": context.seq,
        }

    def gen(self, count: Any) -> Any:
        yield from range(count)

    def gen_fail(self) -> Any:
        yield 1
        raise ValueError("on purpose")

    def blob(self, blob: Any) -> Any:
        return [blob.info, blob.deserialized()]

    def compress(self, on: Any) -> Any:
        Pyro5.config.COMPRESSION = on


class Daemon(Pyro5.api.Daemon):  # type: ignore[misc]
    def validateHandshake(self, conn: Any, data: Any) -> Any:
        if data == "deny":
            raise PermissionError("go away")
        return {"you-said": data} if isinstance(data, dict) else "hello"


def publish(daemon: Any) -> Any:
    demo = Demo()
    daemon.register(demo, "demo")
    daemon.register(demo._sub, "sub")
    daemon.register(demo._marshalled, "sub2")
    daemon.register(Items(), "items")
    daemon.register(Hidden(), "hidden")
    return daemon


def main(kind: Any, where: Any) -> None:
    warnings.simplefilter("ignore")
    if kind == "pair":
        publish(Pyro5.api.Daemon(connected_socket=socket.socket(fileno=int(where)))).requestLoop()
        return
    Pyro5.config.SERVERTYPE = kind
    daemons = {"tcp": publish(Daemon()), "unix": publish(Daemon(unixsocket=where))}
    threads = [threading.Thread(target=daemon.requestLoop, daemon=True) for daemon in daemons.values()]
    for thread in threads:
        thread.start()
    print(json.dumps({name: str(daemon.uriFor("demo")) for name, daemon in daemons.items()}), flush=True)
    sys.stdin.read()
    for daemon in daemons.values():
        daemon.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
