"""Weak registration: the daemon does not keep the object alive."""

from pyroplug.api import Daemon, expose


@expose
class Document:
    def __init__(self, title: str) -> None:
        self._title = title

    @property
    def title(self) -> str:
        return self._title


@expose
class Editor:
    def __init__(self) -> None:
        self._open: dict[str, Document] = {}

    def open(self, title: str) -> Document:
        document = self._open[title] = Document(title)
        # the editor owns its documents; when it drops one, it is unregistered by itself
        daemon.register(document, weak=True)
        return document

    def close(self, title: str) -> None:
        del self._open[title]

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Editor()), flush=True)
    daemon.requestLoop()
