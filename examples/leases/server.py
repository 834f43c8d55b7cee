"""Objects that are made for clients, and how long they stay."""

from pyroplug.api import Daemon, Kernel, expose, registrations


@expose
class Note:
    def __init__(self, text: str) -> None:
        self._text = text

    @property
    def text(self) -> str:
        return self._text

    def _gotReaped(self) -> None:
        print("reaped:", self._text, flush=True)


@expose
class Desk:
    def mine(self, text: str) -> Note:
        """A note that goes when the client that asked for it goes."""
        note = Note(text)
        daemon.register(note, lifetime="session")
        return note

    def leased(self, text: str, seconds: float) -> Note:
        """A note that goes when nobody has used it for a while, whoever that is."""
        note = Note(text)
        daemon.register(note, lifetime=seconds)
        return note

    def overview(self) -> list[str]:
        return sorted(f"{one.type}: {one.lifetime}" for one in registrations(daemon))

    def stop(self) -> None:
        daemon.shutdown()


with Daemon(kernel=Kernel(settings={"POLLTIMEOUT": 0.05})) as daemon:  # leases are looked at that often
    print(daemon.register(Desk(), "desk"), flush=True)
    daemon.requestLoop()
