"""Use objects that a factory makes: ``client.py PYRO:...``."""

import sys

from pyroplug.api import DaemonError, Proxy

with Proxy(sys.argv[1]) as bank:
    emma, otto = bank.open("Emma"), bank.open("Otto")
    print("got a", type(emma).__name__, "for", emma.owner)
    emma.deposit(100)
    otto.deposit(250)
    print("balances:", emma.balance, otto.balance)
    print("richest:", bank.richest([emma, otto]).owner)

    # the server decides how long its objects live
    bank.close("Emma")
    try:
        emma.deposit(1)
    except DaemonError as error:
        print("closed:", str(error).partition(":")[0])
    for account in (emma, otto):
        account._pyroRelease()
    bank.stop()
