"""Every serializer of ours keeps the promises of the interface."""

from __future__ import annotations

import pytest

from pyroplug.serializers import cloudpickle, dill, json, marshal, msgpack, pickle, serpent
from pyroplug.testing.serializers import SerializerConformance


@pytest.mark.feature("F125")
class TestSerpent(SerializerConformance):
    plugin = serpent


@pytest.mark.feature("F126")
class TestJson(SerializerConformance):
    plugin = json
    keeps_bytes = keeps_tuples = keeps_sets = keeps_complex = keeps_keys = False


@pytest.mark.feature("F131")
class TestMsgpack(SerializerConformance):
    plugin = msgpack
    keeps_tuples = keeps_sets = keeps_surrogates = False


@pytest.mark.feature("F127", "F147")
class TestMarshal(SerializerConformance):
    plugin = marshal
    replaces = False


class _Pickling(SerializerConformance):
    keeps_objects = True
    limits_depth = False


@pytest.mark.feature("F128")
class TestPickle(_Pickling):
    plugin = pickle


@pytest.mark.feature("F129")
class TestDill(_Pickling):
    plugin = dill

    def test_what_cannot_be_sent_is_refused_by_the_sender(self) -> None:
        """(dill can send locks.)"""


@pytest.mark.feature("F130")
class TestCloudpickle(_Pickling):
    plugin = cloudpickle
