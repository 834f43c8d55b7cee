"""Regexes of clients: what they find is what Python finds, and none hangs the name server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyroplug.api import NamingError
from pyroplug.plugins.naming.matching import MAX_PATTERN, Matcher, is_cheap
from pyroplug.plugins.naming.server import NameServer
from pyroplug.testing.kernels import LOOPS, Served
from testkit.timeouts import PATIENCE, scaled

U = "PYRO:obj@localhost:4444"
CHEAP = [
    "one", "a\\.", "^a.*", ".*two", "[a-c]+", "(?i)A.ONE", "a|b", "(a|b)\\.(o|t).*", "\\w+\\.\\w+$", "a.one\\Z",
    "", "x?a", "a{1,2}.", "[^a]", ".*o.*", "(?P<group>a)\\..*", "\\bb", "grün.*", "a.+?e", "(?i:A)\\.one", "(?:a)(?:b)?",
]  # fmt: skip
DEAR = [
    "(a+)+$", "(a|b)*", "(?=a)a", "(?!a).*", "(a)\\1*", "(?:ab){2,}", "(.*)*o$", ".*.*.*.*x", "(?<!x)a", "((a|b)+\\.?)+z",
    "(?i)[\u0100-\uffff]+", "a(?:.*o|.*t)+",
]  # fmt: skip
NAMES = ["a.one", "a.two", "b.three", "A.four", "", "grün.☃", "aaaa", "ababab", "x y", "a\nb"]
TERRIBLE = "(x+x+)+y"
LONG = "x" * 40


@pytest.fixture(scope="module")
def matcher() -> Iterator[Matcher]:
    matcher = Matcher(scaled(10))
    yield matcher
    matcher.close()


@pytest.mark.feature("F205", "F275")
@pytest.mark.parametrize("pattern", CHEAP + DEAR)
def test_what_is_found_is_what_python_finds(matcher: Matcher, pattern: str) -> None:
    assert matcher.matching(pattern, NAMES) == [name for name in NAMES if re.match(pattern, name)]


def test_which_are_matched_right_here() -> None:
    assert [pattern for pattern in CHEAP if not is_cheap(pattern, 100, 20)] == []
    assert [pattern for pattern in DEAR if is_cheap(pattern, 100_000, 60)] == []
    assert is_cheap(".*.*x", 10, 20)
    assert not is_cheap(".*.*x", 100_000, 60)  # what is little work for few names is much for many


@pytest.mark.feature("F275")
@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a{2,1}", "(?P<1>a)", "\\", "(?z)", "(?P=x)", "[z-a]", "(?<=a+)b"])
def test_a_wrong_regex_is_told(matcher: Matcher, pattern: str) -> None:
    with pytest.raises(NamingError, match=r"^invalid regex: ") as caught:
        matcher.matching(pattern, NAMES)
    with pytest.raises(re.error) as original:
        re.compile(pattern)
    assert str(caught.value) == f"invalid regex: {original.value}"


def test_long_and_deep_patterns(matcher: Matcher) -> None:
    assert matcher.matching("a" * MAX_PATTERN, NAMES) == []
    with pytest.raises(NamingError, match="invalid regex: it has 1001 characters, at most 1000"):
        matcher.matching("a" * (MAX_PATTERN + 1), NAMES)
    deep = "(" * 400 + "a" + ")" * 400
    try:
        assert "a.one" in matcher.matching(deep, NAMES)
    except NamingError as exc:  # older Pythons cannot
        assert "invalid regex" in str(exc)  # noqa: PT017


def test_one_that_never_ends_is_stopped() -> None:
    matcher = Matcher(0.3)
    begin = time.monotonic()
    with pytest.raises(NamingError, match=r"'\(x\+x\+\)\+y' takes more than 0.3 seconds \(NS_REGEX_TIMEOUT\)"):
        matcher.matching(TERRIBLE, [LONG])
    assert time.monotonic() - begin < PATIENCE
    assert not matcher._running
    assert matcher.matching("x", [LONG]) == [LONG]


def test_many_that_never_end_wait_for_no_longer_than_they_may_take() -> None:
    matcher = Matcher(0.3)
    errors: list[str] = []

    def work() -> None:
        try:
            matcher.matching(TERRIBLE, [LONG])
        except NamingError as exc:
            errors.append(str(exc))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(errors) == 6
    assert all("NS_REGEX_TIMEOUT" in text or "was not tried" in text for text in errors)


def test_closing_ends_what_is_running() -> None:
    matcher = Matcher(60)
    errors: list[str] = []

    def work() -> None:
        try:
            matcher.matching(TERRIBLE, [LONG])
        except NamingError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not matcher._running and time.monotonic() < end:
        time.sleep(0.01)
    matcher.close()
    thread.join(PATIENCE)
    assert errors == [f"regex {TERRIBLE!r} was too much for the process that matched it"]


@pytest.mark.feature("F275")
@pytest.mark.parametrize("loop", LOOPS)
def test_the_name_server_goes_on(loop: str) -> None:
    with Served("tcp4", loop, settings={"NS_REGEX_TIMEOUT": 0.5}) as served:
        served.publish(NameServer(served.kernel), "ns")
        ns: Any = served.proxy("ns")
        ns.register(LONG, U)
        for call in (ns.list, ns.remove):
            with pytest.raises(NamingError, match="NS_REGEX_TIMEOUT"):
                call(regex=TERRIBLE)
            with pytest.raises(NamingError, match="invalid regex"):
                call(regex="(")
        assert ns.list(regex="x+") == {LONG: U}
        assert ns.remove(regex="(x+x+)+") == 1
        assert ns.count() == 0
