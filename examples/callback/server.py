"""Callbacks: the server calls objects of its clients."""

import threading

from pyroplug.api import CommunicationError, Daemon, Proxy, expose


@expose
class Newsroom:
    def __init__(self) -> None:
        self._readers: list[Proxy] = []
        self._lock = threading.Lock()  # several clients may subscribe and publish at the same time

    def subscribe(self, reader: Proxy) -> None:
        with self._lock:
            self._readers.append(reader)

    def publish(self, news: str) -> list[str]:
        """What the readers said."""
        answers = []
        with self._lock:
            for reader in list(self._readers):
                try:
                    answers.append(reader.read(news))
                except CommunicationError:
                    self._readers.remove(reader)  # it has gone
                    answers.append("gone")
                except Exception as error:  # whatever is wrong with one reader is not our problem
                    answers.append(f"failed: {error}")
        return answers

    def stop(self) -> None:
        for reader in self._readers:
            reader._pyroRelease()
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Newsroom()), flush=True)
    daemon.requestLoop()
