"""Use objects that do not stay for ever: ``client.py PYRO:...``."""

import sys
import time

from pyroplug.api import CommunicationError, DaemonError, Proxy

with Proxy(sys.argv[1]) as desk:
    visitor = Proxy(sys.argv[1])
    letter = visitor.mine("a letter")
    memo = desk.leased("a memo", 0.5)
    print("letter:", letter.text, "| memo:", memo.text)
    print(*desk.overview(), sep=", ")

    for _ in range(4):  # longer than the lease, but each call renews it
        time.sleep(0.2)
        memo.text  # noqa: B018
    print("renewed for", memo._pyroRenew(), "seconds; still:", memo.text)

    visitor._pyroRelease()  # the session is over, and what it owned goes with it
    for name, note in (("letter", letter), ("memo", memo)):
        while True:
            time.sleep(0.7)  # (a call is a use: whoever asks too often keeps a lease alive)
            try:
                note.text  # noqa: B018
            except (DaemonError, CommunicationError) as error:
                print(f"{name}: {str(error).partition(':')[0]}")
                break
        note._pyroRelease()
    print(*desk.overview(), sep=", ")
    desk.stop()
