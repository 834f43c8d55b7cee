"""Find an object by its name, or by what is said about it."""

from pyroplug.api import NamingError, Proxy, locate_ns, resolve

# wherever a URI goes, a name will do
with Proxy("PYRONAME:example.weather") as weather:
    print("by name:", weather.forecast("Hull"))

# any object that has all these tags
with Proxy("PYROMETA:example,english") as weather:
    print("by tags:", weather.forecast("Leeds"))

# the name server is an object too
with locate_ns() as ns:
    print("all names:", sorted(name for name in ns.list() if name.startswith("example.")))
    uri, tags = ns.lookup("example.weather", return_metadata=True)
    print("tags:", sorted(tags))
    ns.register("example.alias", uri, metadata={"example"})  # without a daemon that looks after it: it stays
    print("two names, one object:", resolve("PYRONAME:example.alias") == uri)
    print("removed:", ns.remove("example.alias"))

try:
    resolve("PYRONAME:example.wether", delay_time=0.3)  # waits a little, in case it comes
except NamingError as error:
    print("error:", error)

with Proxy("PYRONAME:example.weather") as weather:
    weather.stop()
