"""A circle of calls: the server calls back whoever calls it.

Both ends of one proxy cannot be used at the same time: a call waits for its reply.  So a circle of calls needs a
connection for each hop (a proxy for each call), and a server loop that runs more than one call at a time.
"""

from pyroplug.api import Daemon, Proxy, expose


@expose
class Bouncer:
    def bounce(self, back: Proxy, count: int) -> list[str]:
        if not count:
            return ["server: enough"]
        with back:  # a proxy that came as an argument is a new one: its connection is for this call only
            answers: list[str] = back.bounce(count - 1)
        return ["server: calling back", *answers]

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Bouncer()), flush=True)
    daemon.requestLoop()
