"""Send things beside the arguments: ``client.py PYRO:...``."""

import sys
import uuid

from pyroplug.api import Proxy, current_context

with Proxy(sys.argv[1]) as desk:
    # one id for all calls that have one cause; calls that the server makes meanwhile carry it on
    current_context.correlation_id = uuid.UUID("11111111-2222-3333-4444-555555555555")
    # annotations have ids of 4 characters and carry bytes
    current_context.annotations = {"NOTE": b"for the desk"}
    answer = desk.ask()
    for name in ("client", "correlation", "annotation"):
        print(f"{name}: {answer[name]}")
    print("came back:", bytes(current_context.response_annotations["STMP"]).decode())
    desk.stop()
