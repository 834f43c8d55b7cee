"""Compare what comes over the wire: ``client.py PYRO:packed PYRO:plain``."""

import sys

from pyroplug.api import Proxy

for name, uri in zip(("compressed", "plain"), sys.argv[1:], strict=True):
    with Proxy(uri) as archive:
        size = len(archive.text())
        # the reply as it came, for whoever wants to look at messages
        archive._pyroRawWireResponse = True
        frame = archive.text()
        print(f"{name}: {size} characters came as {len(frame.payload)} bytes")
        archive._pyroRawWireResponse = False
        if name == "plain":
            archive.stop()
