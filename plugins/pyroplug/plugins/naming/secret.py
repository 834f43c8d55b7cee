"""What name server and clients share, from a setting or from a file."""

from __future__ import annotations

from pyroplug.core.errors import ConfigError
from pyroplug.core.settings import Settings

__all__ = ["shared_secret"]


def shared_secret(settings: Settings, name: str, longest: int = -1) -> bytes | None:
    """The value of the setting ``name``, or else what the file holds that the setting ``name``_FILE names, or None.

    :param longest: bytes that are read of the file; -1: all of it
    :raises ConfigError: the file cannot be read, or is empty
    """
    value = getattr(settings, name)
    if value:
        return str(value).encode()
    path = getattr(settings, f"{name}_FILE")
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            secret = file.read(longest).strip()
    except OSError as exc:
        raise ConfigError(f"{name}_FILE: {path!r} cannot be read: {exc.strerror or exc}") from exc
    if not secret:
        raise ConfigError(f"{name}_FILE: {path!r} is empty")
    return secret
