"""Who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import pytest

from testkit.source import Import, Module, entry_points, modules

CORE = "pyroplug.core"
PORTIONS = ("plugins", "serializers", "transports")

GROUND = ("errors", "uri", "stash", "interfaces", "types")
CALL_TOWER = ("wire", "connection", "dispatch", "proxy", "call", "registry", "members", "plan")
PLUGIN_TOWER = ("settings", "hookspecs", "plugins", "kernel")

SHARED_HELPERS = ("pyroplug.transports._sockets", "pyroplug.transports.netutil")
"""What transports and server loops share among themselves."""

COMMAND_HELPERS = tuple(f"pyroplug.cli.{name}" for name in ("failures", "output", "session", "target"))
"""What the commands of plugins may use: the options, the output and the exit codes of the command line."""


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def core_modules() -> list[Module]:
    return [module for name, module in modules().items() if inside(name, CORE)]


def portion_modules() -> list[Module]:
    prefixes = [f"pyroplug.{portion}" for portion in PORTIONS]
    return [module for name, module in modules().items() if any(inside(name, prefix) for prefix in prefixes)]


def ours(module: Module) -> Iterator[Import]:
    return (item for item in module.imports if inside(item.module, "pyroplug"))


def complaint(module: Module, item: Import, reason: str) -> str:
    what = f"{item.module}.{item.name}" if item.name else item.module
    return f"{module.where}:{item.line} imports {what}: {reason}"


def room(name: str) -> str:
    """The file (or folder) of core that a module belongs to."""
    parts = name.split(".")
    return parts[2] if len(parts) > 2 else ""


def within_core(module: Module) -> Iterator[tuple[Import, str]]:
    """What a module of core imports of core at run time, and the room that is."""
    for item in ours(module):
        if item.type_checking:
            continue
        target = room(item.target(modules()))
        if target and target != room(module.name):
            yield item, target


# ---------------------------------------------------------------- the finder of imports itself
def test_imports_are_found_wherever_they_stand() -> None:
    module = Module("pyroplug.plugins.naming.server", modules()["pyroplug.core.uri"].path)
    source = (
        "from __future__ import annotations\nfrom . import store\nfrom ..ping import x\nimport a.b as c\n"
        "if TYPE_CHECKING:\n    from pyroplug.core.kernel import Kernel\n"
        "def f():\n    import late\n    importlib.import_module('pyroplug.api')\n"
    )
    module.__dict__["tree"] = ast.parse(source)  # fills the cached property
    assert [(item.module, item.name, item.type_checking) for item in module.imports] == [
        ("__future__", "annotations", False),
        ("pyroplug.plugins.naming", "store", False),
        ("pyroplug.plugins.ping", "x", False),
        ("a.b", None, False),
        ("pyroplug.core.kernel", "Kernel", True),
        ("late", None, False),
        ("pyroplug.api", None, False),
    ]


# ---------------------------------------------------------------- core
def test_core_imports_nothing_of_ours() -> None:
    """Not even for type checking: core does not know that features exist."""
    assert [
        complaint(module, item, "core knows only core")
        for module in core_modules()
        for item in ours(module)
        if not inside(item.module, CORE)
    ] == []


def test_all_rooms_exist() -> None:
    rooms = {room(module.name) for module in core_modules()}
    assert {*GROUND, *CALL_TOWER, *PLUGIN_TOWER} - rooms == set()


def test_the_call_tower_does_not_know_the_plugin_tower() -> None:
    assert [
        complaint(module, item, "a call only reads the plan")
        for module in core_modules()
        if room(module.name) in CALL_TOWER
        for item, target in within_core(module)
        if target in PLUGIN_TOWER
    ] == []


def test_the_ground_stands_on_nothing() -> None:
    assert [
        complaint(module, item, "the ground knows only the ground")
        for module in core_modules()
        if room(module.name) in GROUND
        for item, target in within_core(module)
        if target not in GROUND
    ] == []


def find_circle(edges: Mapping[str, set[str]]) -> list[str]:
    """One circle among the edges, or an empty list."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(edges.get(name, ())):
            if circle := visit(target, [*path, name]):
                return circle
        done.add(name)
        return []

    for start in sorted(edges):
        if circle := visit(start, []):
            return circle
    return []


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_core_has_no_import_circle() -> None:
    edges: dict[str, set[str]] = {}
    for module in core_modules():
        edges.setdefault(module.name, set()).update(
            target
            for item in ours(module)
            if not item.type_checking and (target := item.target(modules())) != module.name and inside(target, CORE)
        )
    assert find_circle(edges) == []


# ---------------------------------------------------------------- plugins, serializers, transports
def plugin_requirements() -> Mapping[str, tuple[str, ...]]:
    """Module of a plugin to the modules of the plugins it requires, as its PLUGIN says."""
    places = entry_points()
    found: dict[str, tuple[str, ...]] = {}
    for place in places.values():
        module = modules().get(place)
        if module is None:
            continue
        required: list[str] = []
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "PluginInfo":
                for keyword in node.keywords:
                    if keyword.arg == "requires":
                        required += ast.literal_eval(keyword.value)
        found[place] = tuple(places[name] for name in required if name in places)
    return found


def owner(name: str) -> str:
    """The plugin that a module belongs to: the longest entry point around it, or the module itself."""
    around = [place for place in entry_points().values() if inside(name, place)]
    return max(around, key=len, default=name)


def objection(module: Module, item: Import, requirements: Mapping[str, tuple[str, ...]]) -> str | None:
    """Why a module of a portion must not import this, or None."""
    known = modules()
    target = item.target(known)
    portion = ".".join(module.name.split(".")[:2])
    if inside(target, CORE):
        if any(part.startswith("_") for part in target.split(".")):
            return "a private module of core"
        if item.name and target == item.module and target in known and item.name not in (known[target].exports or ()):
            return "not a public name of core"
        return None
    mine = owner(module.name)
    if inside(target, mine) or any(inside(target, place) for place in requirements.get(mine, ())):
        return None
    if inside(target, portion) and target.rpartition(".")[2].startswith("_"):
        package = target.rpartition(".")[0]
        return None if inside(module.name, package) else "a private module of another package"
    if portion == "pyroplug.transports" and target in SHARED_HELPERS:
        return None
    if target in COMMAND_HELPERS:
        return None if item.name in (known[target].exports or ()) else "not a public name of the command line"
    if inside(target, "pyroplug") and target.split(".")[1:2] in [[name] for name in PORTIONS]:
        return f"{mine} does not say that it requires that plugin"
    return "only core is known here"


def test_plugins_import_only_core_and_what_they_require() -> None:
    requirements = plugin_requirements()
    assert [
        complaint(module, item, reason)
        for module in portion_modules()
        for item in ours(module)
        if (reason := objection(module, item, requirements)) is not None
    ] == []


@pytest.mark.parametrize(
    ("importer", "item", "allowed"),
    [
        ("pyroplug.plugins.a", Import("pyroplug.core.uri", "URI", 1, False), True),
        ("pyroplug.plugins.a", Import("pyroplug.core.uri", "_SHAPE", 1, False), False),
        ("pyroplug.plugins.a", Import("pyroplug.core", "uri", 1, False), True),
        ("pyroplug.plugins.a", Import("pyroplug.api", "Proxy", 1, False), False),
        ("pyroplug.plugins.a", Import("pyroplug.plugins.b", "f", 1, False), False),
        ("pyroplug.plugins.a", Import("pyroplug.plugins._shared", "f", 1, False), True),
        ("pyroplug.plugins.a", Import("pyroplug.plugins.b._inner", "f", 1, False), False),
        ("pyroplug.transports.servers.thread", Import("pyroplug.transports._sockets", "f", 1, False), True),
        ("pyroplug.transports.servers.thread", Import("pyroplug.transports.tcp", "f", 1, False), False),
        ("pyroplug.serializers.json", Import("pyroplug.testing.record", "f", 1, True), False),
        ("pyroplug.plugins.a", Import("pyroplug.cli.output", "table", 1, False), True),
        ("pyroplug.plugins.a", Import("pyroplug.cli.output", "_escape", 1, False), False),
        ("pyroplug.plugins.a", Import("pyroplug.cli.app", "app", 1, False), False),
    ],
)
def test_the_rule_itself(importer: str, item: Import, allowed: bool) -> None:
    module = Module(importer, modules()["pyroplug.core.uri"].path)
    assert (objection(module, item, {}) is None) == allowed


def test_testing_imports_only_core() -> None:
    assert [
        complaint(module, item, "pyroplug.testing stands on core alone")
        for name, module in modules().items()
        if inside(name, "pyroplug.testing")
        for item in ours(module)
        if not inside(item.module, CORE) and not inside(item.module, "pyroplug.testing")
    ] == []
