"""Say something about a call, beside its arguments: ``client.py PYRO:...``."""

import sys
import uuid

from pyroplug.api import Proxy, current_context

with Proxy(sys.argv[1]) as shop:
    print(shop.order("tea"))

    # what is set here goes with all further calls of this thread
    current_context.correlation_id = uuid.UUID(int=42)
    current_context.annotations = {"LANG": b"de"}
    print(shop.order("tea"))
    for key, value in sorted(current_context.response_annotations.items()):
        print(f"with the reply: {key} {bytes(value).decode()}")

    current_context.annotations = {}
    print(shop.order("milk"))
    shop.stop()
