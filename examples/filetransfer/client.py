"""Fetch a file in three ways: ``client.py PYRO:...``."""

import hashlib
import sys
import time
from collections.abc import Callable, Iterable

from pyroplug.api import Proxy, current_context

files = Proxy(sys.argv[1])


def in_annotations() -> Iterable[bytes]:
    offset, size = 0, files.size()
    while offset < size:
        offset += files.piece(offset)
        yield current_context.response_annotations["FDAT"]


def fetch(how: str, pieces: Callable[[], Iterable[bytes]]) -> None:
    begin = time.perf_counter()
    digest, count, size = hashlib.sha256(), 0, 0
    for piece in pieces():
        digest.update(piece)
        count, size = count + 1, size + len(piece)
    speed = size / (time.perf_counter() - begin) / 1e6
    right = digest.hexdigest() == files.checksum()
    print(f"{how}: {size} bytes in {count} piece(s), right: {right} ({speed:.0f} MB/s)")


with files:
    files._pyroSerializer = "msgpack"  # carries bytes as bytes
    fetch("whole", lambda: [files.whole()])
    fetch("as a stream", files.chunks)
    files._pyroSerializer = "serpent"  # makes no difference for annotations
    fetch("in annotations", in_annotations)
    files.stop()
