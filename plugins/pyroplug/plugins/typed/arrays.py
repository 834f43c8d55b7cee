"""How numpy's arrays and scalars travel: as their bytes, with a type from a fixed list, and never as a pickle.

Arrays arrive as new arrays of their own memory (writable, in C order, in the byte order of the receiver).
Types are booleans, whole numbers, floats and complex numbers, fixed-size texts and bytes, dates and spans; arrays of
objects, of records and of long doubles are refused on both sides.  Nothing is allocated before shape, item size and
number of bytes are known to agree, so an array cannot need more memory than the message that brought it.
"""

from __future__ import annotations

import math
import re
from typing import Any

from pyroplug.core.errors import SerializeError

from .forms import Form, Pack, bytes_of

__all__ = ["ARRAY", "MAX_DIMENSIONS", "SCALAR"]

MAX_DIMENSIONS = 32
_UNIT = r"\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\]"
_DTYPE = re.compile(
    rf"\|b1|\|[iu]1|<[iu][248]|<f[248]|<c(?:8|16)|<[mM]8(?:{_UNIT})?|\|S[1-9][0-9]{{0,8}}|<U[1-9][0-9]{{0,8}}"
)


def _pack_array(value: Any, pack: Pack) -> dict[str, Any]:
    import numpy as np

    if hasattr(value, "mask"):
        raise SerializeError("numpy's masked arrays cannot be sent: send .filled(), or data and mask")
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("<")
    if dtype.kind in "SU" and not dtype.itemsize:
        dtype = np.dtype(f"{dtype.kind}1")  # such an array has no bytes that could say how long it is
    if not _DTYPE.fullmatch(dtype.str):
        raise SerializeError(
            f"numpy arrays of dtype {array.dtype} cannot be sent: only numbers, booleans, dates, and texts and bytes of"
            " a fixed size; send tolist(), or columns as arrays of their own"
        )
    data: Any = b""
    if array.size:
        flat: Any = np.ascontiguousarray(array, dtype).reshape(-1)
        data = memoryview(flat.view(np.uint8))
    return {"dtype": dtype.str, "shape": list(array.shape), "data": pack.data(data)}


def _unpack_array(data: dict[str, Any]) -> Any:
    text, shape, raw = data["dtype"], data["shape"], bytes_of(data["data"])
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise SerializeError(f"invalid numpy array: dtype {str(text)[:40]!r} is not allowed")
    if not isinstance(shape, (list, tuple)) or len(shape) > MAX_DIMENSIONS:
        raise SerializeError(f"invalid numpy array: the shape must be a list of up to {MAX_DIMENSIONS} numbers")
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise SerializeError("invalid numpy array: the shape must be made of whole numbers that are not negative")
    try:
        import numpy as np
    except ImportError as err:
        raise SerializeError("a numpy array came, but numpy is not installed: pip install pyroplug[numpy]") from err
    dtype = np.dtype(text)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise SerializeError(f"invalid numpy array: shape {tuple(shape)} of {text} does not have {len(raw)} bytes")
    if not raw:
        return np.zeros(shape, dtype.newbyteorder("="))
    if dtype.kind == "b":
        return (np.frombuffer(raw, np.uint8) != 0).reshape(shape)  # other bytes than 0 and 1 are no booleans
    return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("=")).reshape(shape)


def _unpack_scalar(data: dict[str, Any]) -> Any:
    if data["shape"] not in ([], ()):
        raise SerializeError("invalid numpy scalar: it has a shape")
    return _unpack_array(data)[()]


ARRAY = Form("+ndarray", _pack_array, _unpack_array)
SCALAR = Form("+numpy", _pack_array, _unpack_scalar)
