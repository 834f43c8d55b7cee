"""The serializer: pyroplug's conformance suite for serializers, and what is ours."""

# mypy: disable-error-code="import-not-found,import-untyped"
# pyright: reportMissingImports=false
# (pyroplug's own checks look at this file without the package being installed)

from __future__ import annotations

import pytest
from pyroplug_sample import jsonb64

from pyroplug.api import SerializeError
from pyroplug.testing.serializers import SerializerConformance, bind


class TestConformance(SerializerConformance):
    """Some thirty promises that every serializer makes; these are the ones JSON cannot keep."""

    plugin = jsonb64
    keeps_tuples = False
    keeps_sets = False
    keeps_complex = False
    keeps_keys = False


def test_bytes_are_readable_json() -> None:
    assert bind(jsonb64).dumps([b"\x00\x01"]) == b'[{"__class__": "jsonb64.bytes", "data": "AAE="}]'


@pytest.mark.parametrize("data", [b'{"__class__": "jsonb64.bytes"}', b'{"__class__": "jsonb64.bytes", "data": "?"}'])
def test_broken_base64_is_refused(data: bytes) -> None:
    with pytest.raises(SerializeError):
        bind(jsonb64).loads(data)
