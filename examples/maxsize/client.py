"""Run into size limits, on either side: ``client.py PYRO:...``."""

import sys

from pyroplug.api import ConnectionClosedError, Kernel, MessageTooLargeError, Proxy, PyroError

# a client with the same limit refuses to send; the connection is not harmed
careful = Kernel(settings={"MAX_MESSAGE_SIZE": 10_000})
with Proxy(sys.argv[1], kernel=careful) as store:
    print("small:", store.put("x" * 9_000))
    try:
        store.put("x" * 20_000)
    except MessageTooLargeError as error:
        print(f"our limit: {error.size > error.limit}, limit {error.limit}, still connected:",
              store._pyroConnection is not None)  # fmt: skip

# a client without limit is cut off as soon as the server has read the size in the message header
with Proxy(sys.argv[1]) as store:
    try:
        store.put("x" * 200_000)
    except ConnectionClosedError:
        print("the server's limit: connection closed")

    # a result that is too large does not cost the connection: the client is told
    try:
        store.get(20_000)
    except PyroError as error:
        print("the server's limit, on the way back:", type(error).__name__)
    store.stop()
