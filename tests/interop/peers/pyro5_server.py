"""A real Pyro5 server: ``pyro5_server.py SERVERTYPE UNIXSOCKET`` or ``pyro5_server.py pair DESCRIPTOR``.

Prints one line of JSON, the URIs by transport, and serves until its standard input ends.
"""

import json
import socket
import sys
import threading
import warnings

import Pyro5.api
import Pyro5.errors


class CustomError(Exception):
    pass


CustomError.__module__ = "mymod"


@Pyro5.api.expose
class Sub:
    def hi(self, name):
        return f"hi {name}"


@Pyro5.api.expose
class Items:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return ["a", "b", "c"][index]


class Hidden:
    def secret(self):
        return 1


@Pyro5.api.expose
class Demo:
    def __init__(self):
        self._value = 1
        self._fired = threading.Event()
        self._sub = Sub()
        self._marshalled = Sub()  # marshal never makes proxies, and makes Pyro5 forget whose the object is

    def add(self, a, b=0):
        return a + b

    def echo(self, value):
        return value

    def kwargs(self, *args, **kwargs):
        return [list(args), kwargs]

    def nothing(self):
        pass

    def boom(self):
        return 1 / 0

    def boom_attributes(self):
        error = ValueError("bad", 42)
        error.extra = "info"
        raise error

    def boom_pyro(self):
        raise Pyro5.errors.NamingError("unknown name: x")

    def boom_custom(self):
        raise CustomError("mine", 7)

    def boom_stop(self):
        raise StopIteration("over")

    @Pyro5.api.oneway
    def fire(self, number):
        self._value = number
        self._fired.set()

    def fired(self, timeout):
        done = self._fired.wait(timeout)
        self._fired.clear()
        return done and self._value

    @property
    def value(self):
        return self._value

    @value.setter
    def value(self, new):
        self._value = new

    @property
    def readonly(self):
        return "fixed"

    @classmethod
    def by_class(cls):
        return cls.__name__

    @staticmethod
    def by_static(a):
        return a * 2

    def call_back(self, proxy, number):
        with proxy:
            return proxy.add(number, 1)

    def kind(self, value):
        return type(value).__name__

    def sub(self):
        return self._marshalled if Pyro5.api.current_context.serializer_id == 2 else self._sub

    def uri(self):
        return Pyro5.api.URI("PYRO:abc@localhost:1234")

    def context(self):
        context = Pyro5.api.current_context
        context.response_annotations = {"RESP": b"reply-note"}
        return {
            "correlation": str(context.correlation_id),
            "annotations": {key: bytes(value).decode() for key, value in context.annotations.items()},
            "serializer": context.serializer_id,
            "seq": context.seq,
        }

    def compress(self, on):
        Pyro5.config.COMPRESSION = on


class Daemon(Pyro5.api.Daemon):
    def validateHandshake(self, conn, data):
        if data == "deny":
            raise PermissionError("go away")
        return {"you-said": data} if isinstance(data, dict) else "hello"


def publish(daemon):
    demo = Demo()
    daemon.register(demo, "demo")
    daemon.register(demo._sub, "sub")
    daemon.register(demo._marshalled, "sub2")
    daemon.register(Items(), "items")
    daemon.register(Hidden(), "hidden")
    return daemon


def main(kind, where):
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
