"""What both sides know of each other."""

from __future__ import annotations

from collections.abc import Sequence

from pyroplug.core.errors import RemoteProtocolError

__all__ = ["FLAG_WANT", "MAX_PLACES", "PLACES", "packed", "unpacked"]

FLAG_WANT = 0x0400
"""The flag of a reply that says which items are wanted: ``[id of the upload, number of the iterator, how many at most]``."""
PLACES = "PUSH"
"""The annotation of a request: in place of which arguments there are iterators."""
MAX_PLACES = 16
"""How many a call may have."""


def packed(places: Sequence[int | str]) -> bytes:
    """The value of the annotation: positions, and names of keyword arguments."""
    return ",".join(map(str, places)).encode()


def unpacked(data: bytes) -> list[int | str]:
    """The inverse.

    :raises RemoteProtocolError: no client of ours writes that
    """
    try:
        texts = bytes(data).decode().split(",")
    except UnicodeDecodeError:
        texts = []
    places: list[int | str] = [int(text) if text.isdecimal() and text.isascii() else text for text in texts]
    if not 0 < len(places) <= MAX_PLACES or len(set(places)) < len(places):
        raise RemoteProtocolError(f"invalid annotation {PLACES}: {bytes(data[:40])!r}")
    return places
