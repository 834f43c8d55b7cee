"""PYRO_LOGFILE and PYRO_LOGLEVEL: logging without a line of code.

Only when a level is given, and only where the program has not set up logging by itself before the
kernel is made.  All loggers are below ``pyroplug``.
"""

from __future__ import annotations

import logging
import sys

from pyroplug.core.hookspecs import hookimpl
from pyroplug.core.kernel import Kernel
from pyroplug.core.plugins import PluginInfo
from pyroplug.core.settings import Schema, Setting
from pyroplug.core.stash import StashKey

__all__ = ["PLUGIN"]

PLUGIN = PluginInfo("logging", "the settings LOGFILE and LOGLEVEL")

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMAT = "[%(asctime)s.%(msecs)03d,%(name)s,%(levelname)s] %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

_HANDLER = StashKey[logging.Handler]()


def _check_level(level: str) -> str | None:
    return None if level.upper() in LEVELS else f"is no level: use one of {', '.join(LEVELS)}"


@hookimpl
def pyro_settings(schema: Schema) -> None:
    """LOGFILE and LOGLEVEL."""
    schema.add(Setting("LOGFILE", str, "{stderr}", "log file, or {stderr}; used with LOGLEVEL", owner="logging"))
    schema.add(
        Setting("LOGLEVEL", str, None, "level of the log; nothing: none", "logging", optional=True, check=_check_level)
    )


@hookimpl
def pyro_configure(kernel: Kernel) -> None:
    """Put a handler on the logger ``pyroplug``, if a level is given and nobody else did."""
    settings = kernel.settings
    logger = logging.getLogger("pyroplug")
    if settings.LOGLEVEL is None or logging.root.handlers or logger.handlers:
        return
    handler: logging.Handler
    if settings.LOGFILE == "{stderr}":
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.FileHandler(settings.LOGFILE, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(FORMAT, TIME_FORMAT))
    logger.addHandler(handler)
    logger.setLevel(settings.LOGLEVEL.upper())
    kernel.stash[_HANDLER] = handler
    logger.info("logging configured by PYRO_LOGLEVEL=%s", settings.LOGLEVEL)


@hookimpl
def pyro_unconfigure(kernel: Kernel) -> None:
    """Take the handler off again."""
    handler = kernel.stash.pop(_HANDLER, None)
    if handler is not None:
        logging.getLogger("pyroplug").removeHandler(handler)
        handler.close()
