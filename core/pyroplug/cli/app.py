"""The command itself: its options, finding the subcommands, and from errors to exit codes."""

from __future__ import annotations

import importlib
import platform
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import click

from pyroplug.core.settings import nearest
from pyroplug.core.tracebacks import get_pyro_traceback

from .failures import Exit, Failure, RemoteFailure, explain
from .output import clean, color_allowed, print_text
from .session import PluginCommand, Session

__all__ = ["App", "app"]

_COMMANDS: Mapping[str, str] = {
    "call": "client",
    "ping": "client",
    "probe": "probe",
    "plugins": "listing",
    "config": "listing",
    "genguid": "listing",
    "doctor": "doctor",
}
"""Our own commands and their modules, imported when they are needed."""

_EPILOG = """\b
Exit codes: 0 done; 1 failed (the remote method raised, a check failed);
2 wrong arguments; 3 cannot connect; 4 the other side refused, hung up, took
too long or speaks another protocol; 5 a plugin or setting here cannot be used;
70 a mistake in pyroplug; 130 interrupted.

Settings are PYRO_ environment variables; 'pyroplug config' lists them."""


class App(click.Group):
    """The group of all commands.  Whatever goes wrong becomes one line on stderr and an exit code."""

    # ----------------------------------------------------------------- finding commands
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Our own commands and those of the plugins."""
        return sorted({*_COMMANDS, *_session(ctx).plugin_commands(tuple(_COMMANDS))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name; plugins are only asked for names that are not ours."""
        home = _COMMANDS.get(cmd_name)
        if home is not None:
            command: click.Command = getattr(importlib.import_module(f"{__package__}.{home}"), cmd_name)
            return command
        session = _session(ctx)
        found = session.plugin_commands(tuple(_COMMANDS)).get(cmd_name)
        if found is None:
            return None
        return found.command or _unusable(found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            kernel = _session(ctx).try_kernel()
            off = "" if isinstance(kernel, Exception) else kernel.off()
            raise click.UsageError(f"there is no command {name!r}{nearest(name, known) or off}", ctx)
        if name not in _COMMANDS and command is not None:
            session = _session(ctx)
            session.running_plugin = session.plugin_commands(tuple(_COMMANDS))[name].plugin
        return name, command, args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it returns means nothing."""
        super().invoke(ctx)

    # ----------------------------------------------------------------- running
    def main(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run with ``args`` and exit: always by SystemExit."""
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no reason to fail
        session = Session()
        extra = {"obj": session, "color": color_allowed(), **extra, "standalone_mode": False}
        try:
            code = _exit_code(lambda: super(App, self).main(args, prog_name or "pyroplug", **extra), session)
        finally:
            session.close()
        sys.exit(code)


def _exit_code(run: Any, session: Session) -> int:
    try:
        return int(run() or 0)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except click.UsageError as exc:
        return _report(exc, session, _usage(exc))
    except click.ClickException as exc:
        return _report(exc, session, Failure(Exit.FAILED, "here", exc.format_message()))
    except Exception as exc:  # plugins, programs and ourselves: all of it ends here
        return _report(exc, session, explain(exc, session))


def _usage(error: click.UsageError) -> Failure:
    text = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "pyroplug"
    return Failure(Exit.USAGE, "usage", text, f"{command} --help")


def _report(error: Exception, session: Session, failure: Failure) -> int:
    if isinstance(error, RemoteFailure):
        if session.debug:
            _print_lines(get_pyro_traceback(error.error))
        elif session.show_traceback:
            _print_lines(getattr(error.error, "_pyroTraceback", None) or ["the server sent no traceback\n"])
    elif session.debug:
        _print_lines(traceback.format_exception(error))
    print_text(failure.line(), err=True, fg="red")
    return failure.code


def _print_lines(lines: Any) -> None:
    text = lines if isinstance(lines, str) else "".join(str(line) for line in lines)
    click.echo(clean(text).rstrip("\n"), err=True)


def _session(ctx: click.Context) -> Session:
    found = ctx.find_root().obj
    assert isinstance(found, Session)
    return found


def _unusable(offered: PluginCommand) -> click.Command:
    """A stand-in for a command that cannot be used, which says so."""

    def fail(**_: Any) -> None:
        assert offered.error is not None
        raise offered.error

    return click.Command(
        offered.name,
        callback=fail,
        help=f"Not available: {offered.error}",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
    )


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        from pyroplug.core.wire import PROTOCOL_VERSION

        click.echo(
            f"pyroplug {version('pyroplug')} (protocol {PROTOCOL_VERSION}, "
            f"{platform.python_implementation()} {platform.python_version()})"
        )
        ctx.exit()


@click.command(cls=App, invoke_without_command=True, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def app(ctx: click.Context, debug: bool) -> None:
    """Remote objects: call, look, find out what is wrong."""
    _session(ctx).debug |= debug
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(Exit.USAGE)
