"""``call`` and ``ping``."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import click

from pyroplug.core.client import Proxy
from pyroplug.core.errors import CommunicationError, SerializeError
from pyroplug.core.settings import nearest
from pyroplug.core.uri import URI

from .failures import RemoteFailure
from .output import milliseconds, print_json, print_text, show_value
from .session import Session
from .target import URI_OR_LOCATION, ClientOptions, client_options, connected, debug_option, json_option

__all__ = ["call", "parse_arguments", "parse_value", "ping"]

_KEYWORD = re.compile(r"(?P<name>[^\W\d]\w*)=(?P<value>.*)\Z", re.DOTALL)
_NUMBER = re.compile(r"-(\d|\.\d|Infinity\Z)")


def parse_value(text: str) -> Any:
    """The value of JSON text; what is no JSON is taken as it stands."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_arguments(texts: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the keyword arguments (``name=JSON``) that words of a command line mean.

    :raises click.UsageError: a keyword is given twice
    """
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for text in texts:
        match = _KEYWORD.match(text)
        if match is None:
            positional.append(parse_value(text))
        elif match["name"] in keywords:
            raise click.UsageError(f"the argument {match['name']!r} is given twice")
        else:
            keywords[match["name"]] = parse_value(match["value"])
    return positional, keywords


class _CallCommand(click.Command):
    """Knows negative numbers from options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        plain = len(args) - args.index("--") - 1 if "--" in args else 0
        rest = super().parse_args(ctx, args)
        given: tuple[str, ...] = ctx.params.get("args") or ()
        for text in given[: max(0, len(given) - plain)]:
            if text.startswith("-") and len(text) > 1 and not _NUMBER.match(text):
                known = [name for param in self.params for name in param.opts if name.startswith("-")]
                option = text.partition("=")[0]
                raise click.NoSuchOption(
                    option,
                    f"no such option: {option} (arguments that begin with a dash go behind --)",
                    get_close_matches(option, known),
                    ctx,
                )
        return rest


@click.command(
    cls=_CallCommand, short_help="Call a method of a remote object.", context_settings={"ignore_unknown_options": True}
)
@click.argument("uri", type=URI_OR_LOCATION)
@click.argument("method")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("-r", "--raw", is_flag=True, help="Print a text result without quotes.")
@click.option("--traceback", "show_traceback", is_flag=True, help="Show the traceback of a remote exception.")
@client_options()
@debug_option
@click.pass_obj
def call(
    session: Session,
    uri: URI,
    method: str,
    args: tuple[str, ...],
    raw: bool,
    show_traceback: bool,
    serializer: str | None,
    timeout: float | None,
    handshake: Any,
) -> None:
    """Call METHOD of the object at URI and print the result as JSON.

    ARGS are JSON; what is no JSON is a text. NAME=JSON is a keyword argument. In place of a method an
    attribute can be named, to read it, or ATTRIBUTE=JSON, to set it. HOST:PORT in place of a URI means
    the daemon itself.

    \b
    pyroplug call PYRO:test.echoserver@localhost:4444 echo hello
    pyroplug call PYRONAME:calc add 1 -2 precision=3
    pyroplug call PYRO:test.echoserver@localhost:4444 verbose=true
    """  # noqa: D301 - \b is for click
    positional, keywords = parse_arguments(args)
    session.show_traceback = show_traceback
    with connected(session, uri, ClientOptions(serializer, timeout, handshake)) as proxy:
        try:
            _run(proxy, method, positional, keywords, raw)
        except (click.ClickException, KeyboardInterrupt):
            raise
        except (CommunicationError, SerializeError) as exc:
            if not getattr(exc, "_pyroTraceback", None):
                raise
            raise RemoteFailure(exc) from exc
        except OSError as exc:
            if not getattr(exc, "_pyroTraceback", None):
                raise  # standard output was closed
            raise RemoteFailure(exc) from exc
        except Exception as exc:  # whatever the remote method raised
            raise RemoteFailure(exc) from exc


def _run(proxy: Proxy, method: str, positional: list[Any], keywords: Mapping[str, Any], raw: bool) -> None:
    assignment = _KEYWORD.match(method)
    if assignment is not None:
        if positional or keywords:
            raise click.UsageError(f"{method!r} sets an attribute, which takes no arguments")
        _check_name(proxy, assignment["name"], proxy._pyroAttrs, "attribute")
        proxy._pyroInvoke("__setattr__", (assignment["name"], parse_value(assignment["value"])), {})
        return
    if method in proxy._pyroAttrs:
        if positional or keywords:
            raise click.UsageError(f"{method!r} is an attribute, which takes no arguments (set it with {method}=JSON)")
        result = proxy._pyroInvoke("__getattr__", (method,), {})
    else:
        _check_name(proxy, method, proxy._pyroMethods, "method")
        result = proxy._pyroInvoke(method, positional, keywords)
    if not isinstance(result, Iterator):
        show_value(result, raw=raw)
        return
    try:
        for item in result:  # a stream: one line for each item, when it comes
            show_value(item, raw=raw)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


def _check_name(proxy: Proxy, name: str, known: Any, kind: str) -> None:
    if proxy._pyroMetadataKnown and name not in known:
        hint = nearest(name, known) or f"; there are: {', '.join(sorted(known)) or 'none'}"
        raise click.UsageError(f"{proxy._pyroUri.object} at {proxy._pyroUri.location} has no {kind} {name!r}{hint}")


@click.command(short_help="Ping a daemon and print the times.")
@click.argument("uri", type=URI_OR_LOCATION)
@click.option("-c", "--count", type=click.IntRange(1, 1_000_000), default=3, show_default=True, help="How many pings.")
@client_options(5.0)
@json_option
@debug_option
@click.pass_obj
def ping(
    session: Session,
    uri: URI,
    count: int,
    as_json: bool,
    serializer: str | None,
    timeout: float | None,
    handshake: Any,
) -> None:
    """Ping the daemon of the object at URI (or at HOST:PORT) and print the times.

    A ping is answered by the daemon itself; no method of any object runs.
    """
    from pyroplug.plugins.ping import ping as ping_once

    session.try_kernel()  # made now, so as not to be measured
    start = time.perf_counter()
    with connected(session, uri, ClientOptions(serializer, timeout, handshake)) as proxy:
        connecting = time.perf_counter() - start
        peer = proxy._pyroUri.location
        if not as_json:
            print_text(f"connected to {peer}: time={milliseconds(connecting)}")
        times: list[float] = []
        for number in range(1, count + 1):
            start = time.perf_counter()
            ping_once(proxy)
            times.append(time.perf_counter() - start)
            if not as_json:
                print_text(f"pong from {peer}: seq={number} time={milliseconds(times[-1])}")
    lowest, mean, highest = min(times), statistics.fmean(times), max(times)
    if as_json:
        print_json(
            {
                "uri": str(uri),
                "location": peer,
                "connect_ms": connecting * 1000,
                "times_ms": [seconds * 1000 for seconds in times],
                "min_ms": lowest * 1000,
                "mean_ms": mean * 1000,
                "max_ms": highest * 1000,
            }
        )
    else:
        print_text(f"{count} pings: min={milliseconds(lowest)} mean={milliseconds(mean)} max={milliseconds(highest)}")
