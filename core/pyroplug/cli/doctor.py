"""``doctor``: the troubleshooting checklist, gone through by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

import click

from pyroplug.core.uri import URI

from ._checks import FAIL, OK, WARN, Check, local_checks, uri_checks
from .failures import Exit
from .output import print_json, print_text
from .session import Session
from .target import URI_OR_LOCATION, ClientOptions, client_options, debug_option, json_option

__all__ = ["doctor"]

_COLORS: Final[Mapping[str, str]] = {OK: "green", WARN: "yellow", FAIL: "red"}


@click.command(short_help="Check this machine, and the way to an object.")
@click.argument("uri", type=URI_OR_LOCATION, required=False)
@client_options(5.0)
@json_option
@debug_option
@click.pass_obj
def doctor(
    session: Session, uri: URI | None, as_json: bool, serializer: str | None, timeout: float | None, handshake: Any
) -> None:
    """Check this machine's setup and, with a URI (or HOST:PORT), the way to that object.

    Each line is OK, WARN or FAIL, with what to do about it. The exit code is 1 if anything failed.
    """
    options = ClientOptions(serializer, timeout, handshake)
    checks: Iterable[Check] = local_checks(session, options)
    if uri is not None:
        checks = chain(checks, uri_checks(session, uri, options))
    done: list[Check] = []
    for check in checks:
        done.append(check)
        if not as_json:
            _print(check)
    failed = sum(check.status == FAIL for check in done)
    warned = sum(check.status == WARN for check in done)
    if as_json:
        print_json({"ok": not failed, "checks": [vars(check) for check in done]})
    else:
        print_text(f"{len(done)} checks: {failed} failed, {warned} with warnings")
    if failed:
        click.get_current_context().exit(Exit.FAILED)


def _print(check: Check) -> None:
    text = " ".join(check.text.split())
    click.echo(click.style(f"{check.status:4}", fg=_COLORS[check.status]), nl=False)
    print_text(f"  {check.name}: {text}" + (f" -> {check.advice}" if check.advice else ""))
