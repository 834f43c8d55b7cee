"""Run by test_without.py with ``--without batch``; not collected by itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pyroplug.api import BatchProxy, default_kernel, expose
from pyroplug.testing.kernels import Served, make_kernel


class Thing:
    @expose
    def echo(self, value: Any) -> Any:
        return value


@pytest.fixture
def required() -> None:
    default_kernel().require("batch")


def test_passes() -> None:
    assert "batch" not in make_kernel().plugins.loaded
    assert "batch" not in default_kernel().plugins.loaded
    with Served() as served:
        served.publish(Thing())
        assert served.proxy().echo(1) == 1


def test_needs_by_error() -> None:
    with Served() as served:
        served.publish(Thing())
        BatchProxy(served.proxy()).echo(1)


def test_needs_by_cause() -> None:
    try:
        make_kernel().require("batch")
    except Exception as exc:
        raise AssertionError("something else") from exc


@pytest.mark.usefixtures("required")
def test_needs_by_fixture() -> None:
    raise AssertionError


@pytest.mark.needs("batch")
def test_needs_by_mark() -> None:
    raise AssertionError


@pytest.mark.needs("futures")
def test_passes_with_another_mark() -> None:
    pass


def test_needs_in_a_child() -> None:
    program = "from pyroplug.api import default_kernel; default_kernel().require('batch')"
    print(subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=False).stderr)  # noqa: T201
    raise AssertionError


def test_fails() -> None:
    raise AssertionError("a batch of errors")


def test_fails_for_another_plugin() -> None:
    raise AssertionError("this needs the plugin 'futures', which is off")
