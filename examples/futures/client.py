"""Calls in the background, and what will become of them: ``client.py PYRO:...``."""

import sys

from pyroplug.api import Future, Proxy, asyncproxy

with Proxy(sys.argv[1]) as observatory:
    # every call of this proxy returns a future at once; each one under way has a connection of its own
    background = asyncproxy(observatory)
    pictures = [background.expose_plate(star) for star in ("Vega", "Deneb", "Altair")]
    print("meanwhile:", observatory.magnitude("Vega"))
    print("results:", [picture.value for picture in pictures])  # waits

    # exceptions come out where the result is asked for
    try:
        background.magnitude("Sirius").result(timeout=5)
    except KeyError as error:
        print("no such star:", error)

    # one call only, without a second proxy
    print("single:", observatory.magnitude.future("Deneb").result(timeout=5))

    # go on with the result when it is there; works for functions of this program too
    shout = Future(lambda text: text.upper()).then(lambda text: text + "!")
    print("chained:", shout("ready").value)

    background._pyroRelease()
    observatory.stop()
