"""Plugin tracebacks: local variables in remote tracebacks, when wanted."""

from __future__ import annotations

from typing import Any

import pytest

from pyroplug.api import expose
from pyroplug.plugins.tracebacks import detailed_traceback
from pyroplug.testing.kernels import LOOPS, Served

pytestmark = pytest.mark.needs("tracebacks")


class Nasty:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Thing:
    @expose
    def fail(self, number: int) -> None:
        interesting = number * 2
        password = "hunter2"
        long = "y" * 10_000
        nasty = Nasty()
        assert all(value is not None for value in (interesting, password, long, nasty))
        raise ValueError("on purpose")


def remote_text(settings: dict[str, Any], loop: str) -> str:
    with Served(loop=loop, settings=settings) as served:
        served.publish(Thing())
        with pytest.raises(ValueError, match="on purpose") as caught:
            served.proxy().fail(21)
        lines = caught.value._pyroTraceback  # type: ignore[attr-defined]
        assert all(isinstance(line, str) for line in lines)
        return "".join(lines)


@pytest.mark.feature("F110")
@pytest.mark.parametrize("loop", LOOPS)
def test_variables_are_shown(loop: str) -> None:
    text = remote_text({"DETAILED_TRACEBACK": True}, loop)
    assert "interesting = 42" in text
    assert 'raise ValueError("on purpose")' in text
    assert "in fail" in text
    assert "hunter2" not in text.replace('password = "hunter2"', "")
    assert "password = <hidden>" in text
    assert "nasty = <Nasty" in text
    assert "y" * 1000 not in text
    assert "EXCEPTION ValueError: on purpose" in text


@pytest.mark.feature("F110")
def test_they_are_not_shown_unless_asked_for() -> None:
    text = remote_text({}, "thread")
    assert "in fail" in text
    assert "interesting = 42" not in text


def test_causes_and_broken_texts() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def fail() -> None:
        try:
            raise KeyError("the cause")
        except KeyError as exc:
            raise BrokenError from exc

    with pytest.raises(BrokenError) as caught:
        fail()
    text = "".join(detailed_traceback(caught.value))
    assert "BrokenError" in text  # the text of it cannot be had, and that harms nothing
    assert "the cause" in text
