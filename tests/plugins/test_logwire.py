"""Plugin logwire (both sides of a whole call: tests/behaviour)."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest

from pyroplug.api import expose
from pyroplug.core.wire import FLAG_CORR_ID, encode
from pyroplug.plugins.logwire import SHOWN, LoggingLayer
from pyroplug.testing.kernels import Served, as_bytes
from pyroplug.transports.memory import memory_pair

pytestmark = pytest.mark.needs("logwire")


class Thing:
    @expose
    def echo(self, value: Any) -> Any:
        return value


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG, "pyroplug.wire")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "pyroplug.wire"]


@pytest.mark.feature("F288")
def test_a_line_shows_everything_of_a_message(lines: Any) -> None:
    here, there = memory_pair("x")
    stream = LoggingLayer(1 << 20).wrap(here, server_side=False)
    correlation = uuid.uuid4()
    message = as_bytes(encode(4, 1, FLAG_CORR_ID, 77, b"the payload", {"ABCD": b"note"}, correlation.bytes))
    for start in range(0, len(message), 10):  # in pieces, as they may come
        stream.send(message[start : start + 10])
    there.send(message * 2)
    assert stream.recv_into(bytearray(1000)) == 2 * len(message)
    sent, *received = lines()
    assert sent.startswith("sent to memory:x: INVOKE")
    assert len(received) == 2
    for line in received:
        assert line.startswith("received from memory:x: INVOKE")
        for part in (f"corr={correlation}", "ser=1", "seq=77", "flags=0x40", "b'the payload'", "'ABCD': b'note'"):
            assert part in line
    stream.close()
    there.close()


@pytest.mark.feature("F288")
def test_large_payloads_are_cut(lines: Any) -> None:
    here, there = memory_pair("x")
    LoggingLayer(1 << 20).wrap(here, server_side=True).send(as_bytes(encode(4, 1, 0, 0, b"x" * (SHOWN + 1))))
    (line,) = lines()
    assert f"size={SHOWN + 1}" in line
    assert line.endswith("...")
    assert len(line) < SHOWN + 300
    here.close()
    there.close()


def test_garbage_is_told_once_and_passed_on(lines: Any) -> None:
    here, there = memory_pair("x")
    stream = LoggingLayer(1000).wrap(here, server_side=True)
    for _ in range(3):
        there.send(b"no message at all")
        buffer = bytearray(100)
        assert stream.recv_into(buffer) == 17
        assert buffer[:17] == b"no message at all"
    (line,) = lines()
    assert "no further messages can be told apart" in line
    here.close()
    there.close()


@pytest.mark.parametrize("transport", ["tcp4", "memory", "pair"])
def test_large_calls_work_with_it(transport: str) -> None:
    with Served(transport, settings={"LOGWIRE": True}) as served:
        served.publish(Thing())
        text = "x" * 2_000_000
        assert served.proxy().echo(text) == text
