"""Compression: larger payloads are sent compressed where that makes them smaller.

Each side decides for what it sends (COMPRESSION, COMPRESSION_ALGORITHM, COMPRESSION_MINIMUM).  zlib is Pyro's, and every
peer with this plugin reads it.  zstd and lz4 are used when both ends have them, which the handshake tells;
with any other peer zlib is used in their place.  Inflating stops at the size limit of messages, so that a small message
cannot become a large one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pyroplug.core.errors import ConfigError, MessageTooLargeError, RemoteProtocolError
from pyroplug.core.hookspecs import hookimpl, steady
from pyroplug.core.interfaces import Buffer
from pyroplug.core.kernel import Kernel, WireRegister
from pyroplug.core.plan import Inflater, Steps
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.wire import FLAG_COMPRESSED

__all__ = ["FLAG_LZ4", "FLAG_ZSTD", "PLUGIN", "inflate", "inflate_lz4", "inflate_zstd"]

PLUGIN = PluginInfo("compression", "compression of payloads: zlib, and zstd or lz4 where both ends have it")

FLAG_ZSTD = 0x0080
FLAG_LZ4 = 0x0100
MINIMUM = 100
"""Smaller payloads (bytes) are left alone, as in Pyro5."""
LEVEL = 4
"""zlib level, as in Pyro5: fast, and the first bytes of a stream are its 78 5e."""
WINDOW = 23
"""The largest window (log2 of bytes) that a zstd stream may ask for: 8 MiB, as the format recommends."""
_STEP = 1024 * 1024
"""How much is inflated at once: memory follows what came out, not what was announced."""


# --------------------------------------------------------------------------- undoing it
def _checked(result: bytes, max_size: int, complete: bool) -> bytes:
    if len(result) > max_size:
        raise MessageTooLargeError(f"message too large after inflating (max={max_size})", len(result), max_size)
    if not complete:
        raise RemoteProtocolError("invalid compressed payload: it is not complete")
    return result


def inflate(data: Buffer, max_size: int) -> bytes:
    """The original payload of a zlib stream.

    :raises MessageTooLargeError: it has more than ``max_size`` bytes; no more than that was inflated
    :raises RemoteProtocolError: the data is no complete zlib stream
    """
    engine = zlib.decompressobj()
    try:
        result = engine.decompress(data, max_size + 1)
    except zlib.error as exc:
        raise RemoteProtocolError(f"invalid compressed payload: {exc}") from None
    return _checked(result, max_size, engine.eof)


def inflate_zstd(data: Buffer, max_size: int) -> bytes:
    """The same for one frame of zstd."""
    try:
        if _in_python():
            own: Any = importlib.import_module("compression.zstd")
            options = {own.DecompressionParameter.window_log_max: WINDOW}
            engine = own.ZstdDecompressor(options=options)
            result: bytes = engine.decompress(data, max_size + 1)
            return _checked(result, max_size, engine.eof)
        import zstandard

        size = zstandard.get_frame_parameters(data).content_size
        if size > max_size:  # also where it is not told: whoever sends whole payloads knows it
            raise MessageTooLargeError(f"message too large after inflating (max={max_size})", size, max_size)
        reader = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW).stream_reader(data)
        pieces: list[bytes] = []
        found = 0
        while found <= max_size and (piece := reader.read(min(_STEP, max_size + 1 - found))):
            pieces.append(piece)
            found += len(piece)
        return _checked(b"".join(pieces), max_size, found == size)
    except (MessageTooLargeError, RemoteProtocolError):
        raise
    except Exception as exc:  # the errors of the libraries have nothing in common
        raise RemoteProtocolError(f"invalid compressed payload: {exc}") from None


def inflate_lz4(data: Buffer, max_size: int) -> bytes:
    """The same for one frame of lz4."""
    import lz4.frame

    engine: Any = lz4.frame.LZ4FrameDecompressor()
    pieces: list[bytes] = []
    found = 0
    try:
        piece = engine.decompress(data, min(_STEP, max_size + 1))
        while piece:
            pieces.append(piece)
            found += len(piece)
            if found > max_size or engine.eof:
                break
            piece = engine.decompress(b"", min(_STEP, max_size + 1 - found))
    except Exception as exc:  # as above
        raise RemoteProtocolError(f"invalid compressed payload: {exc}") from None
    return _checked(b"".join(pieces), max_size, engine.eof)


# --------------------------------------------------------------------------- doing it
def _in_python() -> bool:
    return sys.version_info >= (3, 14) and _there("compression.zstd")


@functools.cache
def _there(module: str) -> bool:
    # (importlib.util, which would look everywhere, is slow to import)
    return module in sys.modules or importlib.machinery.PathFinder.find_spec(module) is not None


def _zlib() -> Callable[[bytes], bytes]:
    return lambda data: zlib.compress(data, LEVEL)


def _zstd() -> Callable[[bytes], bytes]:
    if _in_python():
        own: Any = importlib.import_module("compression.zstd")

        def compress(data: bytes) -> bytes:
            packed: bytes = own.compress(data)
            return packed

        return compress
    import zstandard

    # (a compressor serves one thread at a time, and making one costs about as much as a small payload)
    return lambda data: zstandard.ZstdCompressor().compress(data)


def _lz4() -> Callable[[bytes], bytes]:
    import lz4.frame

    def compress(data: bytes) -> bytes:
        packed: bytes = lz4.frame.compress(data, store_size=False)
        return packed

    return compress


class Algorithm(NamedTuple):
    """One way to compress; ``module`` is the package that it needs."""

    flag: int
    compressor: Callable[[], Callable[[bytes], bytes]]
    inflate: Inflater
    module: str = ""

    @property
    def there(self) -> bool:
        """Whether it can be used here."""
        return not self.module or _there(self.module) or (self.flag == FLAG_ZSTD and _in_python())


ALGORITHMS: Mapping[str, Algorithm] = {
    "zstd": Algorithm(FLAG_ZSTD, _zstd, inflate_zstd, "zstandard"),
    "lz4": Algorithm(FLAG_LZ4, _lz4, inflate_lz4, "lz4"),
    "zlib": Algorithm(FLAG_COMPRESSED, _zlib, inflate),
}
"""By name, which is also that of the protocol extension; the best first."""


class Deflate:
    """The filter of what is sent."""

    def __init__(self, algorithm: Algorithm = ALGORITHMS["zlib"], minimum: int = MINIMUM) -> None:
        self.flag = algorithm.flag
        self._compress = algorithm.compressor()
        self._minimum = minimum

    def encode(self, data: bytes) -> bytes | None:
        """The compressed payload, or None where that is not smaller."""
        if len(data) <= self._minimum:
            return None
        packed = self._compress(data)
        return packed if len(packed) < len(data) else None


# --------------------------------------------------------------------------- hooks
@hookimpl
def pyro_settings(schema: Schema) -> None:
    """COMPRESSION and how."""
    schema.add(Setting("COMPRESSION", bool, False, "compress the payloads that are sent", owner="compression"))
    schema.add(
        Setting(
            "COMPRESSION_ALGORITHM",
            str,
            "zlib",
            "how to compress: zlib (every peer), zstd or lz4 (peers that have it; others get zlib), auto (the best)",
            owner="compression",
            choices=("zlib", "zstd", "lz4", "auto"),
        )
    )
    schema.add(
        Setting(
            "COMPRESSION_MINIMUM",
            int,
            MINIMUM,
            "payloads up to this many bytes are left alone",
            owner="compression",
            minimum=0,
        )
    )


@hookimpl
def pyro_reserve(wire: WireRegister) -> None:
    """The flags, and how to undo the one that every peer may use."""
    wire.flag(FLAG_COMPRESSED, "COMPRESSED", inflate)
    wire.flag(FLAG_ZSTD, "ZSTD")
    wire.flag(FLAG_LZ4, "LZ4")


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Refuse an algorithm that is not there."""
    name = kernel.settings.COMPRESSION_ALGORITHM
    if kernel.settings.COMPRESSION and name in ALGORITHMS and not ALGORITHMS[name].there:
        raise ConfigError(f"COMPRESSION_ALGORITHM={name} needs a library: pip install pyroplug[{name}]")


@hookimpl
def pyro_extensions(kernel: Kernel) -> Iterable[str]:
    """What can be read here beyond zlib."""
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.module and algorithm.there]


@hookimpl
@steady
def pyro_bind(connection: Any) -> Steps | None:
    """Read what both sides have; compress what this side sends, if it is told to."""
    settings, extensions = connection.settings, connection.extensions
    agreed = tuple(name for name in ALGORITHMS if name in extensions)
    if not settings.COMPRESSION:
        return _reading(agreed) if agreed else None
    wanted = settings.COMPRESSION_ALGORITHM
    if wanted == "auto":
        wanted = next(iter(agreed), "zlib")
    algorithm = ALGORITHMS[wanted if wanted in agreed else "zlib"]
    return Steps(payload=Deflate(algorithm, settings.COMPRESSION_MINIMUM), inflaters=_reading(agreed).inflaters)


@functools.cache  # there are few algorithms
def _reading(agreed: tuple[str, ...]) -> Steps:
    return Steps(inflaters={ALGORITHMS[name].flag: ALGORITHMS[name].inflate for name in agreed})
