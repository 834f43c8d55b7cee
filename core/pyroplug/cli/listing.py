"""``plugins``, ``config`` and ``genguid``: what there is on this side."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pyroplug.core.errors import PluginError
from pyroplug.core.plugins import OWN_DISTRIBUTION, Catalog, Found
from pyroplug.core.settings import CONTROL_VARIABLES, Setting, nearest

from .output import print_json, print_text, table
from .session import Session
from .target import debug_option, json_option

if TYPE_CHECKING:
    from pyroplug.core.kernel import Kernel

__all__ = ["PluginRow", "config", "genguid", "plugin_rows", "plugins"]

HIDDEN = "(hidden)"


# --------------------------------------------------------------------------- plugins
@dataclass
class PluginRow:
    """What is to be told about one plugin."""

    name: str
    distribution: str
    version: str
    state: str
    """``on``, ``off``, ``broken``, or ``unknown`` while something else is broken."""
    reason: str = ""
    summary: str = ""
    requires: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    settings: tuple[str, ...] = field(default=())

    @property
    def about(self) -> str:
        """The summary, and why it is not on."""
        return f"{self.summary} ({self.reason})" if self.summary and self.reason else self.summary or self.reason


def plugin_rows(kernel: Kernel) -> list[PluginRow]:
    """All plugins that are installed, loaded or not."""
    rows = []
    for found in kernel.plugins.catalog:
        info = kernel.plugins.loaded.get(found.name)
        row = PluginRow(found.name, found.distribution, found.version, "on" if info else "off")
        rows.append(row)
        if info is None:
            row.reason = kernel.plugins.reasons.get(found.name, "")
            _describe_unloaded(found, row)
            continue
        row.summary, row.requires = info.summary, info.requires
        manager = kernel.plugins.manager
        callers = manager.get_hookcallers(manager.get_plugin(found.name)) or []
        row.hooks = tuple(sorted(caller.name for caller in callers))
        row.settings = tuple(setting.name for setting in kernel.settings.schema if setting.owner == found.name)
    return rows


def _describe_unloaded(found: Found, row: PluginRow) -> None:
    if found.distribution != OWN_DISTRIBUTION:
        return  # the code of others is not run without being asked for
    try:
        info, _ = found.load()
    except PluginError as exc:
        row.state, row.reason = "broken", str(exc)
    else:
        row.summary, row.requires = info.summary, info.requires


def _rows_without_kernel(error: Exception) -> list[PluginRow]:
    guilty = getattr(error, "plugin", "")
    return [
        PluginRow(found.name, found.distribution, found.version, "broken", str(error))
        if found.name == guilty
        else PluginRow(found.name, found.distribution, found.version, "unknown", "no kernel can be made")
        for found in Catalog.installed()
    ]


@click.command(short_help="List the plugins: on, or why not.")
@json_option
@debug_option
@click.pass_obj
def plugins(session: Session, as_json: bool) -> None:
    """List the plugins: where each is from, whether it is on, or why not.

    PYRO_PLUGINS, PYRO_DISABLE_PLUGINS and PYRO_PLUGIN_AUTOLOAD choose; 'pyroplug config' explains them.
    """
    kernel = session.try_kernel()
    rows = _rows_without_kernel(kernel) if isinstance(kernel, Exception) else plugin_rows(kernel)
    if as_json:
        print_json([vars(row) for row in rows])
    else:
        table(
            ("plugin", "state", "distribution", "hooks", "settings", "about"),
            [
                (
                    row.name,
                    row.state,
                    f"{row.distribution} {row.version}".rstrip(),
                    " ".join(hook.removeprefix("pyro_") for hook in row.hooks) or "-",
                    " ".join(row.settings) or "-",
                    row.about,
                )
                for row in rows
            ],
            {"on": "green", "off": "yellow", "broken": "red", "unknown": "yellow"},
        )
    if isinstance(kernel, Exception):
        raise kernel


# --------------------------------------------------------------------------- config
def _setting(kernel: Kernel, setting: Setting) -> dict[str, Any]:
    value = getattr(kernel.settings, setting.name)
    hidden = setting.secret
    return {
        "name": setting.name,
        "value": HIDDEN if hidden and value else value,
        "origin": kernel.settings.origin(setting.name),
        "owner": setting.owner,
        "variable": setting.variable,
        "default": HIDDEN if hidden and setting.default else setting.default,
        "allowed": setting.allowed(),
        "secret": hidden,
        "help": setting.help,
    }


def _control_variables() -> list[dict[str, Any]]:
    return [
        {
            "name": variable.removeprefix("PYRO_"),
            "value": os.environ.get(variable),
            "origin": "environment" if variable in os.environ else "default",
            "owner": "kernel",
            "variable": variable,
            "default": None,
            "allowed": "a text",
            "secret": False,
            "help": text,
        }
        for variable, text in CONTROL_VARIABLES.items()
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (set, frozenset, list, tuple)):
        return ",".join(sorted(map(str, value)) if isinstance(value, (set, frozenset)) else map(str, value)) or '""'
    return str(value) if value != "" else '""'


@click.command(short_help="List the settings and where their values come from.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--changed", is_flag=True, help="Only what differs from the default.")
@json_option
@debug_option
@click.pass_obj
def config(session: Session, names: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """List the settings (or those with the given NAMEs): value, origin, owner, help.

    Each is an environment variable: PYRO_ and its name. Secrets are not shown.
    """
    kernel = session.kernel
    entries = [_setting(kernel, setting) for setting in kernel.settings.schema]
    controls = _control_variables()
    wanted = [name.upper().removeprefix("PYRO_") for name in names]
    if wanted:
        known = {entry["name"]: entry for entry in [*entries, *controls]}
        for name in wanted:
            if name not in known:
                raise click.BadParameter(f"there is no setting {name!r}{nearest(name, known)}", param_hint="NAME")
        entries = [known[name] for name in wanted]
        controls = []
    if changed:
        entries, controls = ([e for e in group if e["origin"] != "default"] for group in (entries, controls))
    if as_json:
        print_json([*entries, *controls])
        return
    table(
        ("setting", "value", "origin", "owner", "help"),
        [(e["name"], _shown(e["value"]), e["origin"], e["owner"], e["help"]) for e in [*entries, *controls]],
        {"environment": "cyan", "code": "cyan"},
    )


# --------------------------------------------------------------------------- genguid
@click.command(short_help="Print a new unique object id.")
@debug_option
def genguid() -> None:
    """Print a new unique object id, as daemons give them."""
    print_text(f"obj_{uuid.uuid4().hex}")
