"""The command ``service``: what an operating system must know to run a pyroplug command at its start.

It prints a unit for systemd, a property list for launchd, or a task for Windows' Task Scheduler, and installs nothing:
reading it comes first.  Settings that are in the environment go into it, except secrets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.plugins import PluginInfo

__all__ = ["KINDS", "PLUGIN", "definition"]

PLUGIN = PluginInfo("service", "the command 'service': run pyroplug commands at the start of the system")

KINDS: Mapping[str, str] = {"linux": "systemd", "darwin": "launchd", "win32": "windows"}
"""What a system uses, by ``sys.platform``."""


def definition(kind: str, name: str, command: Sequence[str], environment: Mapping[str, str], user: bool) -> str:
    """The text that makes ``command`` a service.

    :param kind: ``systemd``, ``launchd`` or ``windows``
    :param name: of the service, without blanks
    :param environment: variables it gets
    :param user: of the user who installs it; False: of the system
    :raises ValueError: a line break or NUL is in something that has to stand in one line
    """
    for text in (name, *command, *environment.values()):
        if any(c in text for c in "\0\r\n"):
            raise ValueError(f"{text!r} has a line break, which cannot be written into a service definition")
    return _MAKERS[kind](name, command, environment, user)


def _systemd(name: str, command: Sequence[str], environment: Mapping[str, str], user: bool) -> str:
    lines = [
        "[Unit]",
        f"Description=pyroplug: {' '.join(command[1:])}".replace("%", "%%"),
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        f"ExecStart={' '.join(_quoted(part) for part in command)}",
        *(f"Environment={_quoted(f'{key}={value}', dollar=False)}" for key, value in environment.items()),
        "Restart=on-failure",
        "KillSignal=SIGTERM",
        "NoNewPrivileges=yes",
    ]
    if not user:  # an account of its own, and a folder for what it keeps
        lines += ["DynamicUser=yes", "StateDirectory=pyroplug", "Environment=XDG_STATE_HOME=%S"]
    lines += ["", "[Install]", f"WantedBy={'default' if user else 'multi-user'}.target", ""]
    return "\n".join(lines)


def _quoted(text: str, dollar: bool = True) -> str:
    """One word of a line of systemd's."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if dollar:
        text = text.replace("$", "$$")
    return f'"{text}"' if not text or any(c in text for c in " \t'\"\\;") else text


def _launchd(name: str, command: Sequence[str], environment: Mapping[str, str], user: bool) -> str:
    job = {
        "Label": name,
        "ProgramArguments": list(command),
        "EnvironmentVariables": dict(environment),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
    }
    import plistlib  # slow to import, as is xml.sax; most who have this plugin never ask for them

    return plistlib.dumps(job, sort_keys=False).decode()


def _windows(name: str, command: Sequence[str], environment: Mapping[str, str], user: bool) -> str:
    import subprocess
    from xml.sax.saxutils import escape

    trigger = "LogonTrigger" if user else "BootTrigger"
    principal = "<LogonType>InteractiveToken</LogonType>" if user else "<UserId>S-1-5-19</UserId>"  # Local Service
    program, arguments = command[0], subprocess.list2cmdline(command[1:])
    if environment:  # a task has no variables of its own
        setting = " && ".join(f'set "{key}={value}"' for key, value in environment.items())
        program, arguments = "cmd.exe", f'/d /c "{setting} && {subprocess.list2cmdline(command)}"'
    return f"""<?xml version="1.0"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><URI>\\{escape(name)}</URI></RegistrationInfo>
  <Triggers><{trigger}><Enabled>true</Enabled></{trigger}></Triggers>
  <Principals><Principal id="Author">{principal}</Principal></Principals>
  <Settings>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>
  </Settings>
  <Actions Context="Author"><Exec><Command>{escape(program)}</Command><Arguments>{escape(arguments)}</Arguments></Exec></Actions>
</Task>
"""


_MAKERS: Mapping[str, Callable[[str, Sequence[str], Mapping[str, str], bool], str]] = MappingProxyType(
    {"systemd": _systemd, "launchd": _launchd, "windows": _windows}
)


def _program() -> list[str]:
    """How to start the command line, wherever a service starts."""
    import shutil

    found = shutil.which(os.path.join(os.path.dirname(sys.executable), "pyroplug"))
    return [os.path.abspath(found)] if found else [sys.executable, "-m", "pyroplug"]


def _environment(settings: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are set here and belong into a file that anybody may read."""
    secret = {f"PYRO_{setting.name}" for setting in settings.schema if setting.secret}
    return {name: value for name, value in sorted(environ.items()) if name.startswith("PYRO_") and name not in secret}


@hookimpl
def pyro_commands() -> Iterable[Any]:
    """The command ``service``."""
    import click  # only the command line needs it

    @click.command("service", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
    @click.option("--kind", type=click.Choice(sorted(_MAKERS)), help="For what (default: what this system uses).")
    @click.option("--name", default="pyroplug", show_default=True, help="Name of the service.")
    @click.option("--user", is_flag=True, help="A service of this user, not of the system.")
    @click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
    @click.pass_obj
    def service(session: Any, kind: str | None, name: str, user: bool, command: tuple[str, ...]) -> None:
        r"""Print what makes a COMMAND a service of the system.

        COMMAND is one of pyroplug, with its options; what is printed is for the service manager of the operating system.

        \b
        pyroplug service ns -n 0.0.0.0 > /etc/systemd/system/pyroplug.service
        pyroplug service --user --kind launchd ns > ~/Library/LaunchAgents/pyroplug.plist
        pyroplug service --kind windows ns > ns.xml & schtasks /create /tn ns /xml ns.xml
        """
        if any(c.isspace() for c in name) or not name:
            raise click.BadParameter(f"{name!r} is empty or has blanks", param_hint="--name")
        chosen = kind or KINDS.get(sys.platform, "systemd")
        environment = _environment(session.kernel.settings, os.environ)
        try:
            text = definition(chosen, name, [*_program(), *command], environment, user)
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
        click.echo(text, nl=not text.endswith("\n"))

    return [service]
