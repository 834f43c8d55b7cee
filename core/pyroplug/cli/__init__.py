"""The command ``pyroplug`` (also ``python -m pyroplug``); docs/reference/cli.md describes it.

::

    app        the command itself: options, finding the subcommands, from errors to exit codes
    session    what a run of it shares: the kernel, the commands of plugins
    failures   exit codes, and what an error means to who typed the command
    output     text, tables, JSON and colours
    target     the options of commands that connect somewhere
    client     call, ping
    probe      probe
    listing    plugins, config, genguid
    doctor     doctor
    _checks    what doctor looks at

Plugins add commands with the hook ``pyro_commands``.
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command with the arguments of the process, and exit."""
    try:
        from .app import app

        app.main(prog_name="pyroplug")
    except KeyboardInterrupt:  # while the modules were still being imported
        raise SystemExit(130) from None
    raise SystemExit(0)
