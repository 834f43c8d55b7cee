"""For tests of plugins and of the kernel: who was asked what, and how often.

::

    recorder = Recorder()
    kernel = Kernel(extra_plugins=[recorder])
    ...
    assert recorder.names().count("pyro_closed") == 1

    with counted_hooks(kernel) as calls:
        ...
    assert calls["pyro_bind"] == 2
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pyroplug.core.hookspecs import HookSpecs, hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo

__all__ = ["Recorder", "counted_hooks", "make_plugin"]

_HOOKS = tuple(name for name in vars(HookSpecs) if name.startswith("pyro_"))


class Recorder:
    """A plugin that implements every hook, notes each call, and has nothing to say.

    It sees also those calls for which the kernel goes to each plugin by itself, as it does where the failure of
    one must not reach the others.
    """

    def __init__(self, name: str = "recorder") -> None:
        self.PLUGIN = PluginInfo(name, "notes the calls of all hooks")
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self._change = threading.Condition()
        for hook in _HOOKS:
            setattr(self, hook, self._implementation(hook))

    def _implementation(self, hook: str) -> Any:
        specification = getattr(HookSpecs, hook)
        parameters = [name for name in inspect.signature(specification).parameters if name != "self"]

        @functools.wraps(specification)  # tells pluggy the parameters it may fill
        def implementation(*args: Any, **kwargs: Any) -> None:
            arguments = {**dict(zip(parameters, args, strict=False)), **kwargs}
            with self._change:
                self.calls.append((hook, arguments))
                self._change.notify_all()

        return hookimpl(implementation)

    def names(self) -> list[str]:
        """The hooks that were called, in order."""
        with self._change:
            return [name for name, _ in self.calls]

    def arguments(self, hook: str) -> list[Mapping[str, Any]]:
        """The arguments of each call of a hook."""
        with self._change:
            return [arguments for name, arguments in self.calls if name == hook]

    def wait_for(self, hook: str, count: int = 1, timeout: float = 10.0) -> bool:
        """Wait until a hook was called so many times; whether it was."""
        with self._change:
            return self._change.wait_for(lambda: [name for name, _ in self.calls].count(hook) >= count, timeout)

    def clear(self) -> None:
        """Forget what was noted."""
        with self._change:
            self.calls.clear()


def make_plugin(name: str = "given", info: PluginInfo | None = None, **hooks: Callable[..., Any]) -> Any:
    """A plugin of these functions: ``make_plugin("mine", pyro_bind=lambda connection: Steps(...))``."""

    class Plugin:
        PLUGIN = info or PluginInfo(name, "made for a test")

    for hook, function in hooks.items():
        if hook not in _HOOKS:
            raise ValueError(f"there is no hook {hook!r}")
        setattr(Plugin, hook, staticmethod(hookimpl(function)))
    return Plugin


@contextlib.contextmanager
def counted_hooks(kernel: Kernel) -> Iterator[Counter[str]]:
    """Count the hook calls of a kernel, by the hook's name.

    Calls of hooks in which each plugin stands alone are seen by a :class:`Recorder` only.
    """
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    def before(hook_name: str, hook_impls: Any = None, kwargs: Any = None) -> None:
        with lock:
            calls[hook_name] += 1

    undo = kernel.plugins.manager.add_hookcall_monitoring(before, lambda *_: None)
    kernel.hooks.watcher = before
    try:
        yield calls
    finally:
        kernel.hooks.watcher = None
        undo()
