"""Large data: three ways, and what goes over the wire.

A serializer may be slow or wasteful with binary data (serpent writes it as text, four bytes for three).  Annotations are
bytes beside the payload and go as they are.
"""

import hashlib
from collections.abc import Iterator

from pyroplug.api import Daemon, current_context, expose

CHUNK = 64 * 1024
DATA = hashlib.sha256(b"seed").digest() * (4 * 1024 * 1024 // 32)


@expose
class Files:
    def checksum(self) -> str:
        return hashlib.sha256(DATA).hexdigest()

    def whole(self) -> bytes:
        """All at once, by the serializer: simple, and it must fit into one message."""
        return DATA

    def chunks(self) -> Iterator[bytes]:
        """Piece by piece, by the serializer."""
        for offset in range(0, len(DATA), CHUNK):
            yield DATA[offset : offset + CHUNK]

    def size(self) -> int:
        return len(DATA)

    def piece(self, offset: int) -> int:
        """Piece by piece, beside the serializer; the result is the number of bytes."""
        data = DATA[offset : offset + CHUNK]
        current_context.response_annotations = {"FDAT": data}
        return len(data)

    def stop(self) -> None:
        daemon.shutdown()


with Daemon() as daemon:
    print(daemon.register(Files()), flush=True)
    daemon.requestLoop()
