"""See every message: ``client.py PYRO:...``.

Without touching a program the same is had with ``PYRO_LOGWIRE=1 PYRO_LOGLEVEL=DEBUG``.
"""

import logging
import sys

from pyroplug.api import Kernel, Proxy

logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")
logging.getLogger("pyroplug.wire").setLevel(logging.DEBUG)

# what is logged may hold secrets: handshake values, arguments, results.  (With json one can read them here, too)
with Proxy(sys.argv[1], kernel=Kernel(settings={"LOGWIRE": True, "SERIALIZER": "json"})) as thing:
    print("method(42) =", thing.method(42))
    thing.stop()
