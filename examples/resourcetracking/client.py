"""Take something and vanish: ``client.py PYRO:...``."""

import subprocess
import sys

from pyroplug.api import Proxy

CARELESS = """
import os, sys
from pyroplug.api import Proxy
Proxy(sys.argv[1]).take("laser")
os._exit(1)  # a crash: nothing is cleaned up
"""

with Proxy(sys.argv[1]) as instruments:
    instruments.take("camera")
    subprocess.run([sys.executable, "-c", CARELESS, sys.argv[1]], check=False)
    print("the laser is free again:", instruments.wait_until_free("laser"))
    print("still in use:", instruments.in_use())
    instruments.stop()
