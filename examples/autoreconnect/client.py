"""Go on with the same proxy after the server was restarted: ``client.py PYRO:...``."""

import sys

from pyroplug.api import CommunicationError, OverloadError, Proxy

with Proxy(sys.argv[1]) as service:
    print("talking to generation", service.generation())
    service.restart()
    try:
        while service.generation() == 1:  # the old server answers until it has ended
            pass
    except (CommunicationError, OverloadError) as error:  # it hangs up, or says that it shuts down
        print("lost:", type(error).__name__)

    # tries again every two seconds until somebody answers; without this the next call connects by itself,
    # or fails once more
    service._pyroReconnect(tries=5)
    print("talking to generation", service.generation())
    service.stop()
