"""Fixtures for transports."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def ipv6() -> None:
    """Skips the test on a machine without ::1."""
    if socket.has_ipv6:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            try:
                sock.bind(("::1", 0))
            except OSError:
                pass
            else:
                return
    pytest.skip("this machine has no ::1")
