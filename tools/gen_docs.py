"""Writes the generated parts of the documentation: ``python tools/gen_docs.py [--check]``.

A generated part stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` in a page under docs/;
what is around it is written by hand and kept.  With ``--check`` nothing is written, and the exit code
says whether something would be.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pyroplug import api
from pyroplug.core import errors
from pyroplug.core.hookspecs import HookSpecs
from pyroplug.core.kernel import KERNEL_SETTINGS
from pyroplug.core.plugins import OWN_DISTRIBUTION, Catalog
from pyroplug.core.settings import CONTROL_VARIABLES, Schema, Setting

TREE = Path(__file__).resolve().parent.parent

GROUPS: Mapping[str, str] = {
    "R": "Once per kernel",
    "O": "Once per class, object or daemon",
    "C": "Once per connection",
    "P": "Periodically",
}


def markdown(text: str) -> str:
    """A docstring as Markdown: roles and double backquotes become code."""
    text = re.sub(r":[a-z]+:`~?\.?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def signature(name: str, function: Callable[..., object]) -> str:
    """The signature as it is written in the source, without ``self``."""
    found = inspect.signature(function)
    parameters = []
    for parameter in list(found.parameters.values())[1:]:
        annotation = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        parameters.append(parameter.name + annotation)
    returns = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    return f"{name}({', '.join(parameters)}){returns}"


def hook_reference() -> str:
    """Every hook with its code, signature and docstring, by group."""
    hooks = []
    for name, function in vars(HookSpecs).items():
        if not name.startswith("pyro_"):
            continue
        doc = inspect.getdoc(function) or ""
        code, _, rest = doc.partition(". ")
        options = getattr(function, "pyroplug_spec", None) or {}
        hooks.append((code, name, signature(name, function), rest, bool(options.get("firstresult"))))
    lines: list[str] = []
    for letter, title in GROUPS.items():
        lines += [f"### {title} ({letter})", ""]
        chosen = [hook for hook in hooks if hook[0][:1] == letter]
        for code, name, call, doc, first in sorted(chosen, key=lambda hook: int(hook[0][1:] or 0)):
            lines += [f"#### {code} `{name}`", "", "```python", call, "```", "", markdown(doc), ""]
            if first:
                lines += ["*First result:* the implementations run until one gives something other than `None`.", ""]
    return "\n".join(lines).rstrip()


def own_settings() -> Schema:
    """The settings of the kernel and of every plugin of ours, loaded by default or not."""
    schema = Schema(KERNEL_SETTINGS)
    for found in Catalog.installed():
        if found.distribution == OWN_DISTRIBUTION:
            _, plugin = found.load()
            declare = getattr(plugin, "pyro_settings", None)
            if declare is not None:
                declare(schema=schema)
    return schema


def default_text(setting: Setting) -> str:
    """The default as one would write it into the environment variable."""
    value = setting.default
    if value is None or value in ("", set(), []):
        return "*(nothing)*"
    if isinstance(value, (set, frozenset, list, tuple)):
        return f"`{','.join(sorted(map(str, value)))}`"
    return f"`{int(value) if isinstance(value, bool) else value}`"


def setting_table() -> str:
    """Every setting, the kernel's first, then by the plugin that declares it."""
    owners: dict[str, list[Setting]] = {"kernel": []}
    for setting in own_settings():
        owners.setdefault(setting.owner, []).append(setting)
    lines = ["| Variable | Owner | Default | Allowed | What it sets |", "|---|---|---|---|---|"]
    for owner in ["kernel", *sorted(set(owners) - {"kernel"})]:
        for setting in owners[owner]:
            cells = [f"`{setting.variable}`", owner, default_text(setting), setting.allowed(), setting.help]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def control_table() -> str:
    """The variables that are read before any setting exists."""
    rows = [f"| `{name}` | {text} |" for name, text in CONTROL_VARIABLES.items()]
    return "\n".join(["| Variable | What it does |", "|---|---|", *rows])


def summary(thing: object) -> str:
    """The first sentence of a docstring, fit for a cell of a table."""
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
    return markdown(text).replace("|", "\\|")


def kind_of(thing: object) -> str:
    """The table that a name of the API belongs into."""
    if isinstance(thing, type):
        return "Errors" if issubclass(thing, BaseException) else "Classes"
    return "Functions and decorators" if inspect.isroutine(thing) else "Objects and constants"


def api_names() -> str:
    """The names of ``pyroplug.api`` by kind."""
    tables: dict[str, list[str]] = {}
    for name in sorted(api.__all__, key=str.lower):
        thing = getattr(api, name)
        is_value = isinstance(thing, str)
        text = f"`{thing!r}`" if is_value and not name.startswith("__") else summary(type(thing) if is_value else thing)
        tables.setdefault(kind_of(thing), []).append(
            f"| `{name}` | {'the version' if name == '__version__' else text} |"
        )
    lines: list[str] = []
    for kind in ("Classes", "Functions and decorators", "Objects and constants", "Errors"):
        lines += [f"### {kind}", "", "| Name | What it is |", "|---|---|", *tables[kind], ""]
    return "\n".join(lines).rstrip()


def class_members(cls: type, prefix: str, stop: type) -> list[str]:
    """A table of the documented members of a class whose names begin with ``prefix`` (or are public)."""
    lines = ["| Member | What it does |", "|---|---|"]
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(stop)]):
        found.update(vars(base))
    for name, member in sorted(found.items()):
        if not name.startswith(prefix) or (not prefix and name.startswith("_")):
            continue
        target = member.__func__ if isinstance(member, staticmethod) else member
        if isinstance(target, property) and target.__doc__:
            lines.append(f"| `{name}` | {summary(target)} |")
        elif inspect.isfunction(target) and target.__doc__:
            names = [p.name for p in inspect.signature(target).parameters.values() if p.name != "self"]
            lines.append(f"| `{name}({', '.join(names)})` | {summary(target)} |")
    return lines


def daemon_members() -> str:
    """The public members of a daemon."""
    return "\n".join(class_members(api.Daemon, "", object))


def proxy_members() -> str:
    """The members of a proxy: all others are those of the remote object."""
    return "\n".join(class_members(api.Proxy, "_pyro", object))


def error_tree() -> str:
    """The tree of errors, as the module draws it."""
    drawing = (inspect.getdoc(errors) or "").partition("::\n\n")[2].partition("\n\n")[0]
    return f"```text\n{inspect.cleandoc(drawing)}\n```"


GENERATORS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("docs/plugins.md", "hooks", hook_reference),
    ("docs/reference/settings.md", "settings", setting_table),
    ("docs/reference/settings.md", "control", control_table),
    ("docs/reference/api.md", "names", api_names),
    ("docs/reference/api.md", "daemon", daemon_members),
    ("docs/reference/api.md", "proxy", proxy_members),
    ("docs/reference/errors.md", "tree", error_tree),
)
"""Page, name of the part, and the function that gives its text."""


def replaced(page: str, name: str, text: str) -> str:
    """``page`` with the part ``name`` made of ``text``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n<!-- generated by `make docs`, do not edit -->\n\n{text}\n\n{end}{after}"


def main(argv: list[str]) -> int:
    """Write or check every generated part."""
    check = "--check" in argv
    stale = 0
    for path, name, generate in GENERATORS:
        page = TREE / path
        old = page.read_text("utf-8")
        new = replaced(old, name, generate())
        if new == old:
            continue
        stale += 1
        if check:
            print(f"{path}: the part {name!r} is not up to date, run `make docs`", file=sys.stderr)
        else:
            page.write_text(new, "utf-8")
            print(f"{path}: wrote the part {name!r}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
