"""Send data through a dispatcher: ``client.py PYRO:dispatcher PYRO:listener``."""

import sys

from pyroplug.api import Proxy, SerializedBlob

with Proxy(sys.argv[1]) as dispatcher, Proxy(sys.argv[2]) as listener:
    dispatcher.register("weather", listener)
    print("answer:", dispatcher.process(SerializedBlob("weather", ["rain", "wind", {"degrees": 7.5}])))
    dispatcher.stop()
