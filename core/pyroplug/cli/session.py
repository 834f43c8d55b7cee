"""What one run of the command shares: the kernel, made when first needed, and the commands of plugins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pyroplug.core.errors import PluginConflict, PluginError, PyroError

from .output import print_text

if TYPE_CHECKING:
    from pyroplug.core.kernel import Kernel

__all__ = ["PluginCommand", "Session"]


@dataclass(frozen=True)
class PluginCommand:
    """A command that a plugin offers, or why it cannot be used."""

    name: str
    plugin: str
    command: click.Command | None
    error: PluginError | None = None


class Session:
    """The ``obj`` of the click contexts; plugin commands get it with ``click.pass_obj``.

    Plugins may rely on ``kernel``; it belongs to the session, which closes it.
    """

    def __init__(self) -> None:
        self.debug = False
        """Show tracebacks."""
        self.connected = False
        """Whether the connection that the command is about was made."""
        self.show_traceback = False
        """Show the remote traceback of a remote exception."""
        self.running_plugin = ""
        """The plugin whose command is running."""
        self._kernel: Kernel | None = None
        self._kernel_error: Exception | None = None
        self._commands: dict[str, PluginCommand] | None = None
        self.warnings: tuple[str, ...] = ()
        """What there was to complain about while the kernel was made."""

    # ----------------------------------------------------------------- the kernel
    @property
    def kernel(self) -> Kernel:
        """The kernel that the environment asks for.

        :raises ConfigError: a setting cannot be used
        :raises PluginError: a plugin cannot be used
        """
        if self._kernel_error is not None:
            raise self._kernel_error
        if self._kernel is None:
            self._kernel = self._make_kernel()
        return self._kernel

    def _make_kernel(self) -> Kernel:
        from pyroplug.core.kernel import Kernel

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                return Kernel()
            except Exception as exc:  # hooks are plugin code
                self._kernel_error = exc if isinstance(exc, PyroError) else _of_plugin(exc)
                raise self._kernel_error from exc
            finally:
                self.warnings = tuple(str(w.message) for w in caught)
                for text in self.warnings:
                    print_text(f"pyroplug: warning: {text}", err=True)

    def try_kernel(self) -> Kernel | Exception:
        """The kernel, or why there is none."""
        try:
            return self.kernel
        except PyroError as exc:
            return exc

    def close(self) -> None:
        """Release what the run has used."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()

    # ----------------------------------------------------------------- commands of plugins
    def plugin_commands(self, taken: tuple[str, ...]) -> Mapping[str, PluginCommand]:
        """The commands that plugins offer; whatever is wrong with one of them is told, and kept to that one."""
        if self._commands is None:
            self._commands = {}
            kernel = self.try_kernel()
            if isinstance(kernel, Exception):
                print_text(f"pyroplug: warning: the commands of plugins are not available: {kernel}", err=True)
            else:
                for name in sorted(kernel.plugins.loaded):
                    self._collect(kernel, name, taken)
        return self._commands

    def _collect(self, kernel: Kernel, plugin: str, taken: tuple[str, ...]) -> None:
        assert self._commands is not None
        try:
            offered = list(kernel.plugins.call_one(plugin, "pyro_commands") or ())
        except Exception as exc:  # plugin code
            print_text(f"pyroplug: warning: plugin {plugin!r} fails to offer its commands: {exc!r}", err=True)
            return
        for command in offered:
            name = getattr(command, "name", None)
            if not isinstance(command, click.Command) or not name:
                print_text(
                    f"pyroplug: warning: plugin {plugin!r} offers {command!r}, which is no click.Command", err=True
                )
            elif name in taken:
                print_text(f"pyroplug: warning: plugin {plugin!r} offers {name!r}, which is a core command", err=True)
            elif name in self._commands:
                other = self._commands[name].plugin
                conflict = PluginConflict(
                    f"the command {name!r} is offered by plugins {other!r} and {plugin!r}", plugin
                )
                self._commands[name] = PluginCommand(name, f"{other}, {plugin}", None, conflict)
            else:
                self._commands[name] = PluginCommand(name, plugin, command)


def _of_plugin(error: Any) -> PluginError:
    return PluginError(f"a plugin failed while the kernel was made: {error!r}")
