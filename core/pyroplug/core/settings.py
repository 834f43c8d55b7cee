"""Settings: declared with type and help by whoever owns them, read from the environment once.

The kernel and the plugins declare :class:`Setting` objects in a :class:`Schema`; :class:`Settings` holds
the values.  Each setting is an attribute (``settings.SERIALIZER``) and an environment variable
(``PYRO_SERIALIZER``).  Explicit values win over the environment, the environment wins over defaults.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .errors import ConfigError, PluginConflict

__all__ = ["CONTROL_VARIABLES", "PREFIX", "Schema", "Setting", "Settings", "nearest"]

PREFIX = "PYRO_"

CONTROL_VARIABLES: Mapping[str, str] = {
    "PYRO_PLUGINS": "which plugins: an exact list, or changes to the default such as '+dill,-retry'",
    "PYRO_DISABLE_PLUGINS": "plugins that must not be loaded, whatever else says so",
    "PYRO_PLUGIN_AUTOLOAD": "0: load no plugin that was not named",
    "PYRO_TRACE_PLUGINS": "1: print each hook call and who implements it to stderr",
    "PYRO_STRICT_CONFIG": "1: an unknown PYRO_ variable is an error, not a warning",
}
"""Variables that are read before any setting exists, with their help."""

_TRUE = frozenset({"1", "yes", "on", "true"})
_FALSE = frozenset({"0", "no", "off", "false"})


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``" (did you mean 'serpent'?)"``, or an empty text when nothing is close."""
    import difflib  # for errors only

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Setting(NamedTuple):
    """One setting: its name without prefix, type, default, one line of help, and what is allowed.

    ``type`` is one of bool, int, float, str, list and set (the last two of text, comma separated in the
    environment).  ``optional`` allows None, which an empty environment variable stands for.  A ``secret``
    is never shown.
    """

    name: str
    type: type
    default: Any
    help: str
    owner: str = "kernel"
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    secret: bool = False
    check: Callable[[Any], str | None] | None = None
    """Returns what is wrong with a value, or None."""

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return PREFIX + self.name

    def allowed(self) -> str:
        """What values are allowed, in words."""
        if self.choices:
            text = "one of " + ", ".join(repr(c) for c in self.choices)
        elif self.type is bool:
            text = "1, yes, on, true or 0, no, off, false"
        elif self.type in (list, set):
            text = "a comma separated list"
        else:
            text = {int: "a whole number", float: "a number", str: "a text"}[self.type]
        if self.minimum is not None:
            text += f", at least {self.minimum:g}"
        if self.maximum is not None:
            text += f", at most {self.maximum:g}"
        return text + (", or nothing" if self.optional else "")

    def parse(self, text: str) -> Any:
        """The value that an environment variable's text stands for.

        An empty text means "not set" for everything but str, list and set settings.
        """
        text = text.strip()
        if not text and (self.optional or self.type in (bool, int, float)):
            return None if self.optional else self.default
        try:
            if self.type is bool:
                return self._flag(text)
            if self.type in (list, set):
                return self.type(part.strip() for part in text.split(",") if part.strip())
            return self.type(text)
        except ValueError:
            raise self._refuse(text, self.variable) from None

    def _flag(self, text: str) -> bool:
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise ValueError(text)

    def validate(self, value: Any, where: str | None = None) -> Any:
        """``value`` in the setting's type, or ConfigError naming ``where`` it came from."""
        where = where or f"setting {self.name}"
        if value is None:
            if self.optional:
                return None
            raise self._refuse(value, where)
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise self._refuse(value, where) from None
        elif self.type is bool and isinstance(value, int) and value in (0, 1):
            value = bool(value)
        elif self.type in (list, set) and isinstance(value, (list, tuple, set, frozenset)):
            value = self.type(value)
        if not isinstance(value, self.type) or (isinstance(value, bool) and self.type is not bool):
            raise self._refuse(value, where)
        if self.choices and value not in self.choices:
            raise self._refuse(value, where, nearest(str(value), [str(c) for c in self.choices]))
        number: Any = value
        if self.type is float and not math.isfinite(number):
            raise self._refuse(value, where)
        if (self.minimum is not None and number < self.minimum) or (self.maximum is not None and number > self.maximum):
            raise self._refuse(value, where)
        problem = self.check(value) if self.check else None
        if problem:
            raise ConfigError(f"{where}: {'(hidden)' if self.secret else repr(value)} {problem}")
        return value

    def _refuse(self, value: object, where: str, hint: str = "") -> ConfigError:
        shown = "(hidden)" if self.secret else repr(value)
        return ConfigError(f"{where} cannot be {shown}{hint}: allowed is {self.allowed()}")


class Schema:
    """All settings that exist in one kernel."""

    def __init__(self, settings: Iterable[Setting] = ()) -> None:
        self._settings: dict[str, Setting] = {}
        self.remark = ""
        """Why a setting may be missing, for error texts."""
        for setting in settings:
            self.add(setting)

    def add(self, setting: Setting) -> None:
        """Declare a setting; two owners of one name are a PluginConflict."""
        other = self._settings.get(setting.name)
        if other is not None and other.owner != setting.owner:
            raise PluginConflict(
                f"setting {setting.name} is declared by {other.owner!r} and by {setting.owner!r}", setting.owner
            )
        if not setting.name.isupper():
            raise PluginConflict(f"setting {setting.name!r} of {setting.owner!r} must be in capitals", setting.owner)
        setting.validate(setting.default)
        self._settings[setting.name] = setting

    def __iter__(self) -> Iterator[Setting]:
        return iter(sorted(self._settings.values(), key=lambda s: s.name))

    def __contains__(self, name: object) -> bool:
        return name in self._settings

    def __getitem__(self, name: str) -> Setting:
        try:
            return self._settings[name]
        except KeyError:
            raise ConfigError(f"there is no setting {name!r}{nearest(name, self._settings)}{self.remark}") from None

    def check_environment(self, environ: Mapping[str, str]) -> None:
        """Warn once about PYRO_ variables nobody declared; an error with PYRO_STRICT_CONFIG=1."""
        known = {PREFIX + name for name in self._settings} | set(CONTROL_VARIABLES)
        unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
        if not unknown:
            return
        short = [name.removeprefix(PREFIX) for name in known]  # with their prefix all would be near to each other
        hints = (nearest(name.removeprefix(PREFIX), short).replace("'", f"'{PREFIX}", 1) for name in unknown)
        text = "unknown environment variable: " + ", ".join(map("".join, zip(unknown, hints, strict=True)))
        if environ.get("PYRO_STRICT_CONFIG", "").lower() in _TRUE:
            raise ConfigError(text)
        warnings.warn(text, UserWarning, stacklevel=2)


class Settings:
    """The values of a :class:`Schema`, as attributes.

    Assigning validates; an unknown name is a ConfigError that suggests the nearest one.  ``version``
    changes with every assignment, so that whoever derived something from settings can tell.
    """

    def __init__(
        self,
        schema: Schema,
        environ: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "_schema", schema)
        put(self, "_environ", dict(os.environ if environ is None else environ))
        put(self, "_explicit", dict(values or {}))
        put(self, "_values", {})
        put(self, "_origins", {})
        put(self, "version", 0)
        self.reset()

    # private state, declared for type checkers (assigned through object.__setattr__ above)
    _schema: Schema
    _environ: dict[str, str]
    _explicit: dict[str, Any]
    _values: dict[str, Any]
    _origins: dict[str, str]
    version: int

    @property
    def schema(self) -> Schema:
        """What settings exist."""
        return self._schema

    def reset(self, useenvironment: bool = True) -> None:
        """Back to the values at the start: defaults, environment (unless told not to), explicit ones."""
        for name in self._explicit:
            self._schema[name]
        for setting in self._schema:
            self._load(setting, useenvironment)

    def declare(self, setting: Setting) -> None:
        """Add a setting to the schema and give it its value at once."""
        self._schema.add(setting)
        self._load(setting, True)

    def _load(self, setting: Setting, useenvironment: bool = True) -> None:
        name = setting.name
        text = self._environ.get(setting.variable) if useenvironment else None
        if name in self._explicit:
            value, origin = setting.validate(self._explicit[name]), "code"
        elif text is not None:
            value, origin = setting.validate(setting.parse(text), setting.variable), "environment"
        else:
            value, origin = setting.default, "default"
        if isinstance(value, (list, set)):
            value = type(value)(value)
        self._put(name, value, origin)

    def _put(self, name: str, value: Any, origin: str) -> None:
        self._values[name] = value
        self._origins[name] = origin
        self.__dict__[name] = value  # found at once; __getattr__ is for names that do not exist
        object.__setattr__(self, "version", self.version + 1)

    def __getattr__(self, name: str) -> Any:
        # only reached when the normal look-up failed: settings live in _values
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            known = nearest(name, self._values)
            raise AttributeError(f"there is no setting {name!r}{known}{self._schema.remark}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._put(name, self._schema[name].validate(value), "code")

    def origin(self, name: str) -> str:
        """Where the value came from: "default", "environment" or "code"."""
        return self._origins[name]

    def as_dict(self) -> dict[str, Any]:
        """All values by name."""
        return dict(sorted(self._values.items()))

    asDict = as_dict

    def copy(self) -> Settings:
        """An independent copy."""
        other = Settings(self._schema, self._environ, self._explicit)
        for name, value in self._values.items():
            other._put(name, type(value)(value) if isinstance(value, (list, set)) else value, self._origins[name])
        return other

    def dump(self) -> str:
        """A table of all settings with value and origin; secrets are hidden."""
        lines = []
        for setting in self._schema:
            value = self._values[setting.name]
            shown = "(hidden)" if setting.secret and value else str(value)
            lines.append(f"{setting.name} = {shown}  [{self._origins[setting.name]}]")
        return "\n".join(lines)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        return f"<Settings of {len(self._values)} items>"
