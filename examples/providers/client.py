"""Several objects would do: who chooses, and how."""

from pyroplug.api import Kernel, Proxy, locate_ns

with Proxy("PYROMETA:printer,a3") as printer:
    print(printer.print("a poster"))

# one after the other; "random" is the default, "first" takes the first that answers
kernel = Kernel(settings={"NS_POLICY": "round_robin"})
for number in range(4):
    with Proxy("PYROMETA:printer", kernel=kernel) as printer:
        print(printer.print(f"page {number}"))

with locate_ns() as ns:
    for name, (_, tags) in sorted(ns.yplookup(meta_any={"a3", "a4"}).items()):
        print(name, sorted(tags))

# one of the two has gone without a word, but its name is still there
with locate_ns() as ns:
    ns.register("example.printer.lost", "PYRO:printer@localhost:1", metadata={"printer"})
kernel = Kernel(settings={"NS_POLICY": "first"})
with Proxy("PYROMETA:printer", kernel=kernel) as printer:
    print("one that answers:", printer.print("a page"))
    with locate_ns() as ns:
        ns.remove("example.printer.lost")
    printer.stop()
