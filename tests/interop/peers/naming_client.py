"""A client of a name server, with Pyro5 or with pyroplug: whatever it is and it asks, the answers must be the same.

``naming_client.py API SERIALIZER HOST PORT`` prints the answers as JSON.  API is ``Pyro5.api`` or ``pyroplug.api``; without
a host the name server is looked for; ``./u:path`` is a Unix socket.  An object that is registered as ``demo``, with the tags
``class`` and ``demo``, is called as well.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

URI = "PYRO:calc@localhost:4444"


def caught(function: Any, *args: Any, **kwargs: Any) -> list[str]:
    try:
        return ["value", repr(function(*args, **kwargs))]
    except Exception as exc:
        return [type(exc).__name__, str(exc)]


def entries(found: Any) -> dict[str, Any]:
    return {name: [str(uri), sorted(tags)] for name, (uri, tags) in found.items()}


def main() -> None:
    name, serializer, host, port = sys.argv[1:]
    api = importlib.import_module(name)
    api.config.SERIALIZER = serializer
    place = (f"@{host}" + (f":{port}" if port else "")) if host else ""
    found: dict[str, Any] = {}
    with api.locate_ns(host or None, int(port) if port else None) as ns:
        found["located"] = str(ns._pyroUri)
        found["ping"] = ns.ping()
        before = ns.count()
        ns.register("it.a", URI)
        ns.register("it.b", api.URI(URI), metadata={"red", "round"})
        ns.register("it.c", URI, safe=True, metadata=["red"])
        found["count"] = ns.count() - before
        found["taken"] = caught(ns.register, "it.a", URI, safe=True)
        ns.register("it.a", URI + "5")
        uri = ns.lookup("it.a")
        found["lookup"] = [type(uri) is api.URI, str(uri)]
        uri, tags = ns.lookup("it.b", return_metadata=True)
        found["lookup with metadata"] = [str(uri), sorted(tags)]
        found["unknown"] = caught(ns.lookup, "it.nobody")
        found["list"] = ns.list(prefix="it.")
        found["list with metadata"] = entries(ns.list(regex=r"it\.[bc]", return_metadata=True))
        found["bad regex"] = caught(ns.list, regex="(")[0]
        found["both"] = caught(ns.list, prefix="a", regex="b")[0]
        found["all"] = entries(ns.yplookup(meta_all=["red", "round"]))
        found["any"] = ns.yplookup(meta_any=["round", "green"], return_metadata=False)
        found["neither"] = ns.yplookup()
        found["one text"] = caught(ns.yplookup, meta_all="red")[0]
        found["wrong type"] = caught(ns.register, 5, URI)[0]
        found["wrong metadata"] = caught(ns.register, "it.d", URI, metadata="red")[0]
        found["wrong uri"] = caught(ns.register, "it.d", "nonsense")[0] != "value"
        ns.set_metadata("it.c", {"green"})
        found["set"] = sorted(ns.lookup("it.c", return_metadata=True)[1])
        found["set unknown"] = caught(ns.set_metadata, "it.nobody", {"x"})[0]
        found["remove"] = [ns.remove("it.a"), ns.remove("it.a"), ns.remove(prefix="it.b"), ns.remove(regex="it.*")]
        found["its own"] = ns.remove("Pyro.NameServer")
        found["left"] = ns.count() - before
        if not place.startswith("@./"):  # such uris lead to Unix sockets with pyroplug only
            found["resolve"] = str(api.resolve("PYRONAME:Pyro.NameServer" + place))
        if "demo" in ns.list():
            for uri in ("PYRONAME:demo", "PYROMETA:class,demo"):
                with api.Proxy(uri + place) as proxy:
                    found[uri] = proxy.echo([1, "two", 3.5])
            for uri in ("PYRONAME:nobody", "PYROMETA:nobody"):
                with api.Proxy(uri + place) as proxy:
                    found[uri] = caught(proxy._pyroBind)[0]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
