"""``nsc``: ask and change a name server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from pyroplug.cli.failures import RemoteFailure
from pyroplug.cli.output import milliseconds, print_json, print_text, table
from pyroplug.cli.session import Session
from pyroplug.cli.target import ClientOptions, client_options, debug_option, json_option
from pyroplug.core.client import Proxy
from pyroplug.core.errors import NamingError, SecurityError, URIError
from pyroplug.core.settings import nearest
from pyroplug.core.uri import URI
from pyroplug.plugins.naming import NAMESERVER_NAME

__all__ = ["Entry", "Tool", "nsc", "read_entries"]

_LOCATING = ("host", "port", "unixsocket", "bcaddr", "verbose", "serializer", "timeout", "handshake", "as_json")
"""The options that say which name server, and how to talk to it: before the command or after it."""

PATIENCE = 5.0
"""Seconds for each answer, unless --timeout says otherwise."""

MANY = 10
"""How many names are shown before all of those that match are removed."""


# --------------------------------------------------------------------------- which name server
@dataclass
class Tool:
    """What the commands share: the options that were given, and the way to the name server."""

    session: Session
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def as_json(self) -> bool:
        """Whether programs read the output."""
        return bool(self.given.get("as_json"))

    @property
    def timeout(self) -> float:
        """Seconds for each answer."""
        return float(self.given.get("timeout") or PATIENCE)

    def say(self, text: str) -> None:
        """Tell what is being done, with --verbose."""
        if self.given.get("verbose"):
            print_text(text, err=True)

    @contextmanager
    def name_server(self) -> Iterator[Proxy]:
        """The name server that the options mean.  What it raises is told as its own."""
        with self._find() as proxy:
            self.session.connected = True
            self.say(f"name server: {proxy._pyroUri}")
            try:
                yield proxy
            except (click.ClickException, NamingError):
                raise
            except SecurityError as exc:
                raise NamingError(str(exc)) from exc  # it says no
            except Exception as exc:  # whatever it raised over there
                if getattr(exc, "_pyroTraceback", None):
                    raise RemoteFailure(exc) from exc
                raise

    def _find(self) -> Proxy:
        kernel, given = self.session.kernel, self.given
        host = f"./u:{given['unixsocket']}" if given.get("unixsocket") else given.get("host")
        if given.get("unixsocket") and given.get("host"):
            raise click.UsageError("--unixsocket and --host are two places: give one of them")
        if given.get("bcaddr"):
            kernel.require("naming_broadcast")
            kernel.settings.BROADCAST_ADDRS = [part.strip() for part in given["bcaddr"].split(",") if part.strip()]
        if host is None:
            self.say("looking for a name server")
            from pyroplug.plugins.naming.locate import locate_ns

            asked = True if given.get("bcaddr") else None  # as the settings say
            return self._prepared(
                locate_ns(None, given.get("port"), asked, kernel=kernel, timeout=given.get("timeout"))
            )
        location = host if host.startswith("./") else _location(host, given.get("port") or kernel.settings.NS_PORT)
        try:
            return self._prepared(Proxy(URI(f"PYRO:{NAMESERVER_NAME}@{location}"), kernel=kernel))
        except URIError as exc:
            raise click.BadParameter(f"{host!r} is no host", param_hint="--host") from exc

    def _prepared(self, proxy: Proxy) -> Proxy:
        ClientOptions(self.given.get("serializer"), self.timeout, self.given.get("handshake")).apply(proxy)
        proxy._pyroBind()
        return proxy


def _location(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


class _Located(click.Command):
    """Has the options that say which name server; they are kept in the :class:`Tool`, and no parameters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in (
            click.option("-n", "--host", metavar="HOST", help="Host of the name server; without it, it is looked for."),
            click.option(
                "-p", "--port", type=click.IntRange(1, 65535), help="Its port; without --host the port for broadcasts."
            ),
            click.option("-u", "--unixsocket", metavar="PATH", help="Its Unix socket."),
            click.option("-c", "--bcaddr", metavar="ADDRESS,...", help="Where to send broadcasts."),
            client_options(PATIENCE),
            click.option("-v", "--verbose", is_flag=True, help="Tell which name server it is."),
            json_option,
            debug_option,
        ):
            option(self)

    def invoke(self, ctx: click.Context) -> Any:
        tool = ctx.find_object(Tool)
        if tool is None:
            session = ctx.find_root().obj
            ctx.obj = tool = Tool(session if isinstance(session, Session) else Session())
        for name in _LOCATING:
            value = ctx.params.pop(name, None)
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                tool.given[name] = value
        return super().invoke(ctx)


class _Commands(_Located, click.Group):
    """The group; commands may also be written with a dash, and Pyro's older names mean the same."""

    command_class = _Located

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name.replace("-", "_")
        return super().get_command(ctx, _OLDER_NAMES.get(name, name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)


_OLDER_NAMES: Mapping[str, str] = {
    "resolve": "lookup",
    "listall": "list",
    "listmeta_all": "yplookup_all",
    "listmeta_any": "yplookup_any",
}
"""What Pyro3 and Pyro4 call them."""


@click.command(cls=_Commands, name="nsc", short_help="Ask and change a name server.")
def nsc() -> None:
    """Ask and change a name server.

    Without --host or --unixsocket the name server is looked for, as programs do. The options may also
    stand behind the command.
    """


# --------------------------------------------------------------------------- entries
@dataclass(frozen=True)
class Entry:
    """One registered name."""

    name: str
    uri: str
    tags: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "uri": self.uri, "metadata": list(self.tags)}


def read_entries(found: Mapping[str, Any]) -> list[Entry]:
    """The entries of a ``list(..., return_metadata=True)``, by name."""
    return [Entry(name, str(uri), tuple(sorted(tags or ()))) for name, (uri, tags) in sorted(found.items())]


def _print_entries(tool: Tool, found: Mapping[str, Any]) -> None:
    entries = read_entries(found)
    if tool.as_json:
        print_json([entry.as_dict() for entry in entries])
    else:
        table(("name", "uri", "metadata"), [(e.name, e.uri, " ".join(e.tags)) for e in entries])


def _done(tool: Tool, text: str, **facts: Any) -> None:
    if tool.as_json:
        print_json(facts)
    else:
        print_text(text)


def _plain_name(_: click.Context, param: click.Parameter, value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise click.BadParameter("a name is not empty and has no control characters", param=param)
    return value


def _some_uri(_: click.Context, param: click.Parameter, value: str) -> str:
    try:
        return str(URI(value))
    except URIError as exc:
        raise click.BadParameter(str(exc), param=param) from exc


def _offers(proxy: Proxy, *methods: str) -> None:
    missing = [method for method in methods if method not in proxy._pyroMethods]
    if missing:
        raise NamingError(f"this name server has no {missing[0]!r}: it is none of pyroplug's")


# --------------------------------------------------------------------------- looking
@nsc.command()
@click.pass_obj
def ping(tool: Tool) -> None:
    """Is it there? How long does it take to answer?"""
    import time

    with tool.name_server() as proxy:
        start = time.perf_counter()
        proxy.ping()
        seconds = time.perf_counter() - start
        uri = str(proxy._pyroUri)
    _done(tool, f"{uri} answers: time={milliseconds(seconds)}", uri=uri, ms=seconds * 1000)


@nsc.command()
@click.pass_obj
def count(tool: Tool) -> None:
    """How many names are registered."""
    with tool.name_server() as proxy:
        number = proxy.count()
    _done(tool, str(number), count=number)


@nsc.command("list")
@click.argument("prefix", required=False)
@click.pass_obj
def list_(tool: Tool, prefix: str | None) -> None:
    """List the names, or those that begin with PREFIX."""
    with tool.name_server() as proxy:
        _print_entries(tool, proxy.list(prefix=prefix, return_metadata=True))


@nsc.command()
@click.argument("pattern")
@click.pass_obj
def listmatching(tool: Tool, pattern: str) -> None:
    """List the names that match PATTERN, a regular expression, from their beginning.

    To try a pattern out before something is removed with it, or before it becomes that of a gateway.
    """
    with tool.name_server() as proxy:
        _print_entries(tool, proxy.list(regex=pattern, return_metadata=True))


@nsc.command()
@click.argument("name")
@click.pass_obj
def lookup(tool: Tool, name: str) -> None:
    """Print the URI of NAME, and its metadata."""
    with tool.name_server() as proxy:
        uri, tags = proxy.lookup(name, return_metadata=True)
    entry = Entry(name, str(uri), tuple(sorted(tags or ())))
    if tool.as_json:
        print_json(entry.as_dict())
        return
    print_text(entry.uri)
    if entry.tags:
        print_text(f"metadata: {' '.join(entry.tags)}")


@nsc.command("yplookup_all")
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.pass_obj
def yplookup_all(tool: Tool, tags: tuple[str, ...]) -> None:
    """List the names that have all these tags."""
    with tool.name_server() as proxy:
        _print_entries(tool, proxy.yplookup(meta_all=list(tags), return_metadata=True))


@nsc.command("yplookup_any")
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.pass_obj
def yplookup_any(tool: Tool, tags: tuple[str, ...]) -> None:
    """List the names that have at least one of these tags."""
    with tool.name_server() as proxy:
        _print_entries(tool, proxy.yplookup(meta_any=list(tags), return_metadata=True))


@nsc.command()
@click.argument("name")
@click.pass_obj
def showmeta(tool: Tool, name: str) -> None:
    """Print the metadata tags of NAME, one on a line."""
    with tool.name_server() as proxy:
        tags = sorted(proxy.lookup(name, return_metadata=True)[1] or ())
    if tool.as_json:
        print_json(tags)
    for tag in () if tool.as_json else tags:
        print_text(tag)


@nsc.command()
@click.pass_obj
def status(tool: Tool) -> None:
    """What the name server tells about itself."""
    with tool.name_server() as proxy:
        _offers(proxy, "status")
        facts = {"uri": str(proxy._pyroUri), **proxy.status()}
    if tool.as_json:
        print_json(facts)
    else:
        table(("about", "value"), [(name, _fact(name, value)) for name, value in facts.items()])


def _fact(name: str, value: Any) -> str:
    return str(datetime.timedelta(seconds=int(value))) if name in ("uptime", "seconds_up") else str(value)


# --------------------------------------------------------------------------- changing
@nsc.command()
@click.argument("name", callback=_plain_name)
@click.argument("uri", callback=_some_uri)
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.option("--replace", is_flag=True, help="Also if the name is registered already.")
@click.pass_obj
def register(tool: Tool, name: str, uri: str, tags: tuple[str, ...], replace: bool) -> None:
    """Register NAME for the object at URI, with metadata TAGs."""
    with tool.name_server() as proxy:
        proxy.register(name, uri, safe=not replace, metadata=list(tags) or None)
    _done(tool, f"registered {name}", name=name, uri=uri, metadata=sorted(tags))


@nsc.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def remove(tool: Tool, names: tuple[str, ...]) -> None:
    """Remove these names. Exit code 1 if one of them was not there."""
    with tool.name_server() as proxy:
        removed = {name: bool(proxy.remove(name)) for name in names}
    if tool.as_json:
        print_json(removed)
    else:
        for name, was_there in removed.items():
            print_text(f"removed {name}" if was_there else f"not there, or not to be removed: {name}")
    if not all(removed.values()):
        click.get_current_context().exit(1)


@nsc.command()
@click.argument("pattern")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def removematching(tool: Tool, pattern: str, yes: bool) -> None:
    """Remove the names that match PATTERN, a regular expression, from their beginning.

    Tells which they are and asks first.
    """
    with tool.name_server() as proxy:
        if not yes:
            _confirm(sorted(proxy.list(regex=pattern)), f"that match {pattern!r}")
        number = proxy.remove(regex=pattern)
    _done(tool, f"removed: {number}", removed=number)


def _confirm(names: Sequence[str], which: str) -> None:
    if not names:
        raise NamingError(f"there are no names {which}")
    shown = ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")
    print_text(f"{len(names)} {'name' if len(names) == 1 else 'names'} {which}: {shown}", err=True)
    try:
        sure = click.confirm("Remove them?", err=True)
    except click.Abort:
        print_text(err=True)  # ends the line of the question
        raise click.UsageError("nobody is there to be asked; --yes removes without asking") from None
    if not sure:
        print_text("nothing removed", err=True)
        click.get_current_context().exit(1)


@nsc.command()
@click.argument("name")
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.pass_obj
def setmeta(tool: Tool, name: str, tags: tuple[str, ...]) -> None:
    """Give NAME these metadata tags in place of those it has; without TAGs it has none."""
    with tool.name_server() as proxy:
        proxy.set_metadata(name, list(tags))
    _done(tool, f"metadata of {name}: {' '.join(sorted(tags)) or 'none'}", name=name, metadata=sorted(tags))


@nsc.command()
@click.pass_obj
def shutdown(tool: Tool) -> None:
    """End the name server, if it was started with --allow-shutdown."""
    with tool.name_server() as proxy:
        _offers(proxy, "shutdown")
        uri = str(proxy._pyroUri)
        proxy.shutdown()
    _done(tool, f"{uri} shuts down", uri=uri)


# --------------------------------------------------------------------------- groups
def _groups(proxy: Proxy) -> Any:
    from pyroplug.plugins.naming.groups import Groups

    return Groups(proxy)


@nsc.command()
@click.argument("group")
@click.pass_obj
def creategroup(tool: Tool, group: str) -> None:
    """Make a group, such as :Lab or :Lab.Floor2; the one around it must exist."""
    with tool.name_server() as proxy:
        groups = _groups(proxy)
        groups.create_group(group)
        name = groups.full_name(group)
    _done(tool, f"made the group {name}", group=name)


@nsc.command()
@click.argument("group")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def deletegroup(tool: Tool, group: str, yes: bool) -> None:
    """Remove a group with all that is in it. Asks first unless it is empty."""
    with tool.name_server() as proxy:
        groups = _groups(proxy)
        name = groups.full_name(group)
        inside = sorted(full for full in proxy.list(prefix=f"{name}.") if full != f"{name}.")
        if inside and not yes:
            _confirm(inside, f"in the group {name}")
        number = groups.delete_group(group)
    _done(tool, f"removed the group {name} and {number - 1} names in it", group=name, removed=number)


@nsc.command()
@click.argument("group", required=False)
@click.pass_obj
def listgroup(tool: Tool, group: str | None) -> None:
    """List what is right inside a group (default :Default)."""
    with tool.name_server() as proxy:
        found = _groups(proxy).list_group(group)
    if tool.as_json:
        print_json(found)
    else:
        table(("name", "kind"), list(found.items()))


# --------------------------------------------------------------------------- watching
@nsc.command()
@click.argument("prefix", required=False)
@click.option("--once", is_flag=True, help="Look once; exit code 1 if a name does not answer.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    default=32,
    show_default=True,
    help="How many objects are tried at a time.",
)
@click.pass_obj
def watch(tool: Tool, prefix: str | None, once: bool, interval: float, workers: int) -> None:
    """Show the names (or those that begin with PREFIX), where they lead, and whether each answers.

    The view is renewed until Ctrl-C. With --json it is one line of JSON for each look.
    """
    from .watch import Watch

    if not Watch(tool, prefix, interval, workers).run(once):
        click.get_current_context().exit(1)
