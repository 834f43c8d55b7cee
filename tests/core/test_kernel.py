"""The kernel: which plugins it loads, what it makes of them, and what it refuses."""

from __future__ import annotations

import logging
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from pyroplug.api import (
    URI,
    ConfigError,
    Daemon,
    Kernel,
    PluginConflict,
    PluginError,
    PluginInfo,
    Proxy,
    SerializeError,
    Setting,
    Steps,
    URIError,
    default_kernel,
    expose,
    resolve,
)
from pyroplug.testing.kernels import Served, make_kernel
from pyroplug.testing.plugins import Recorder, make_plugin


class Thing:
    @expose
    def echo(self, value: Any) -> Any:
        return value


# --------------------------------------------------------------------------- choice
def test_what_is_loaded_by_default() -> None:
    kernel = make_kernel()
    assert {"serpent", "json", "msgpack", "tcp", "unix", "thread", "multiplex", "oneway"} <= set(kernel.plugins.loaded)
    for name in ("pickle", "dill", "cloudpickle", "marshal"):
        assert name not in kernel.plugins.loaded
        assert "opt-in" in kernel.plugins.reasons[name]


def test_the_environment_chooses() -> None:
    kernel = make_kernel(environ={"PYRO_PLUGINS": "serpent,memory"})
    assert sorted(kernel.plugins.loaded) == ["memory", "serpent"]
    assert "not in the list" in kernel.plugins.reasons["tcp"]
    kernel = make_kernel(environ={"PYRO_PLUGINS": "+marshal,-retry"})
    assert "marshal" in kernel.plugins.loaded
    assert "retry" not in kernel.plugins.loaded
    kernel = make_kernel(environ={"PYRO_PLUGIN_AUTOLOAD": "0", "PYRO_PLUGINS": "+serpent,+tcp"})
    assert sorted(kernel.plugins.loaded) == ["serpent", "tcp"]
    with pytest.raises(ConfigError, match="exact list, or a list where each name has"):
        make_kernel(environ={"PYRO_PLUGINS": "serpent,+tcp"})
    with pytest.raises(ConfigError, match="PYRO_PLUGIN_AUTOLOAD cannot be 'maybe'"):
        make_kernel(environ={"PYRO_PLUGIN_AUTOLOAD": "maybe"})
    with pytest.raises(PluginError, match=r"there is no plugin 'serpnet' \(did you mean 'serpent'\?\)"):
        make_kernel(environ={"PYRO_PLUGINS": "serpnet,tcp"})


def test_disabling_what_does_not_exist_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    make_kernel(environ={"PYRO_DISABLE_PLUGINS": "nonsense"})
    assert "'nonsense' that is to be disabled does not exist" in caplog.text


def test_plugins_given_as_objects() -> None:
    recorder = Recorder("mine")
    kernel = make_kernel(plugins=["serpent", "memory", recorder])
    assert sorted(kernel.plugins.loaded) == ["memory", "mine", "serpent"]
    assert recorder.names()[:1] == ["pyro_settings"]
    with pytest.raises(PluginError, match="is no plugin: it has no PLUGIN"):
        make_kernel(extra_plugins=[SimpleNamespace()])
    with pytest.raises(ValueError, match="no hook 'pyro_nonsense'"):
        make_plugin("bad", pyro_nonsense=lambda: None)


def test_a_misspelt_hook_is_refused() -> None:
    from pyroplug.core.hookspecs import hookimpl

    class Misspelt:
        PLUGIN = PluginInfo("misspelt", "has a hook that does not exist")

        @staticmethod
        @hookimpl
        def pyro_bnid(connection: Any) -> None:
            pass

    with pytest.raises(Exception, match="pyro_bnid"):
        make_kernel(extra_plugins=[Misspelt])


def test_requirements_order_and_circles() -> None:
    order: list[str] = []

    def plugin(name: str, *requires: str, conflicts: tuple[str, ...] = ()) -> Any:
        def configure(kernel: Any) -> None:
            order.append(name)

        info = PluginInfo(name, "for a test", requires=requires, conflicts=conflicts)
        return make_plugin(info=info, pyro_configure=configure)

    base = ["serpent", "memory"]
    Kernel(plugins=[*base, plugin("aa", "zz"), plugin("zz"), plugin("mm")], environ={})
    assert order.index("zz") < order.index("aa")
    with pytest.raises(PluginError, match="'aa' requires 'zz', which is off"):
        Kernel(plugins=[*base, plugin("aa", "zz")], environ={})
    with pytest.raises(PluginError, match=r"circle: (aa -> bb -> aa|bb -> aa -> bb)"):
        Kernel(plugins=[*base, plugin("aa", "bb"), plugin("bb", "aa")], environ={})
    with pytest.raises(PluginConflict, match="'aa' cannot be used together with 'bb'"):
        Kernel(plugins=[*base, plugin("aa", conflicts=("bb",)), plugin("bb")], environ={})


# --------------------------------------------------------------------------- conflicts name both sides
def test_conflicts() -> None:
    def settings(schema: Any) -> None:
        schema.add(Setting("COMPRESSION", bool, False, "mine", owner="mine"))

    with pytest.raises(PluginConflict, match=r"setting COMPRESSION is declared by '(compression|mine)' and by"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_settings=settings)])
    with pytest.raises(PluginConflict, match=r"flag.*claimed by plugin 'mine' and by 'kernel'"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_reserve=lambda wire: wire.flag(0x01, "X"))])
    with pytest.raises(PluginConflict, match="message 4 is claimed"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_reserve=lambda wire: wire.message(4, print))])
    with pytest.raises(PluginConflict, match="single bit"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_reserve=lambda wire: wire.flag(0x03, "X"))])
    memory = make_kernel().transports["m"]
    with pytest.raises(PluginConflict, match="transport scheme 'm' is there already"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_transports=lambda: [memory])])
    serpent = make_kernel().serializers["serpent"]
    with pytest.raises(PluginConflict, match="serializer 'serpent' is there already"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_serializers=lambda: [serpent])])
    other: Any = SimpleNamespace(name="other", wire_id=serpent.wire_id, safe=True, bind=serpent.bind)
    with pytest.raises(PluginConflict, match="have the same wire id 1"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_serializers=lambda: [other])])
    thread = make_kernel().servers["thread"]
    with pytest.raises(PluginConflict, match="server loop 'thread' is there already"):
        make_kernel(extra_plugins=[make_plugin("mine", pyro_servers=lambda: [thread])])


# --------------------------------------------------------------------------- settings
@pytest.mark.feature("F259", "F308", "F261", "F258")
def test_settings_come_from_code_environment_and_defaults() -> None:
    kernel = make_kernel(environ={"PYRO_COMMTIMEOUT": "2.5", "PYRO_COMPRESSION": "yes"}, COMMTIMEOUT=1)
    settings = kernel.settings
    assert (settings.COMMTIMEOUT, settings.origin("COMMTIMEOUT")) == (1.0, "code")
    assert (settings.COMPRESSION, settings.origin("COMPRESSION")) == (True, "environment")
    assert settings.origin("SERIALIZER") == "default"
    settings.COMMTIMEOUT = 3
    assert settings.COMMTIMEOUT == 3.0
    settings.reset()
    assert settings.COMMTIMEOUT == 1.0
    assert settings.as_dict()["COMPRESSION"] is True
    with pytest.raises(ConfigError, match=r"there is no setting 'COMMTIMOUT' \(did you mean 'COMMTIMEOUT'\?\)"):
        settings.COMMTIMOUT = 1
    with pytest.raises(ConfigError, match=r"PYRO_COMPRESSION cannot be 'perhaps'"):
        make_kernel(environ={"PYRO_COMPRESSION": "perhaps"})


@pytest.mark.feature("F324")
def test_unknown_variables_are_a_warning_or_an_error() -> None:
    environ = {"PYRO_COMMTIMOUT": "1"}
    with pytest.warns(UserWarning, match=r"PYRO_COMMTIMOUT \(did you mean 'PYRO_COMMTIMEOUT'\?\)"):
        make_kernel(environ=environ)
    with pytest.raises(ConfigError, match="PYRO_COMMTIMOUT"):
        make_kernel(environ={**environ, "PYRO_STRICT_CONFIG": "1"})


def test_two_kernels_have_nothing_in_common() -> None:
    """Scenario 62."""
    first, second = make_kernel(COMPRESSION=True), make_kernel()
    assert second.settings.COMPRESSION is False
    first.settings.COMMTIMEOUT = 9
    assert second.settings.COMMTIMEOUT == 0
    first.types.register_dict_to_class("x.Y", lambda name, data: "made")
    assert first.codecs()["json"].loads(b'{"__class__": "x.Y"}') == "made"
    with pytest.raises(SerializeError, match=r"unsupported serialized class: x\.Y"):
        second.codecs()["json"].loads(b'{"__class__": "x.Y"}')


def test_a_setting_that_changes_holds_for_new_connections() -> None:
    with Served() as served:
        served.publish(Thing())
        old = served.proxy()
        assert old.echo(1) == 1
        served.kernel.settings.SERIALIZERS_ACCEPTED = {"json"}
        assert old.echo(2) == 2
        with pytest.raises(Exception, match="not accepted: 1"):
            served.proxy().echo(3)
        new = served.proxy()
        new._pyroSerializer = "json"
        assert new.echo(4) == 4


# --------------------------------------------------------------------------- later
def test_enabling_a_plugin_later() -> None:
    kernel = make_kernel()
    with pytest.raises(SerializeError):
        kernel.serializer_id("nonsense")
    info = kernel.enable("marshal")
    assert info.name == "marshal"
    assert kernel.enable("marshal") is info
    assert "marshal" in kernel.serializers
    with pytest.raises(PluginError, match="there is no plugin 'nonsense'"):
        kernel.enable("nonsense")
    with pytest.raises(PluginError, match="disabled"):
        make_kernel(environ={"PYRO_DISABLE_PLUGINS": "marshal"}).enable("marshal")


def test_closing_a_kernel(caplog: pytest.LogCaptureFixture) -> None:
    def fail(kernel: Any) -> None:
        raise RuntimeError("cannot let go")

    recorder = Recorder()
    kernel = make_kernel(extra_plugins=[recorder, make_plugin("failing", pyro_unconfigure=fail)])
    kernel.close()
    assert recorder.names().count("pyro_unconfigure") == 1
    assert "plugin 'failing' failed while the kernel was closed" in caplog.text


def test_a_plugin_that_refuses_the_configuration() -> None:
    def refuse(kernel: Any) -> None:
        raise ConfigError("not with these settings")

    with pytest.raises(ConfigError, match="not with these settings"):
        make_kernel(extra_plugins=[make_plugin("picky", pyro_configure=refuse)])


def test_hooks_that_fail_are_isolated_where_a_reply_depends_on_it(caplog: pytest.LogCaptureFixture) -> None:
    """Scenario 55."""

    def fail(*args: Any) -> None:
        raise RuntimeError("hook broke")

    failing = make_plugin(
        "failing",
        pyro_opened=lambda connection: fail(),
        pyro_closed=lambda connection: fail(),
        pyro_daemon_closed=lambda daemon: fail(),
        pyro_housekeeping=lambda daemon: fail(),
    )
    recorder = Recorder()
    with Served(settings={"POLLTIMEOUT": 0.01}, extra_plugins=[failing, recorder]) as served:
        served.publish(Thing())
        with served.proxy() as proxy:
            assert proxy.echo(1) == 1
        assert recorder.wait_for("pyro_closed")
        assert recorder.wait_for("pyro_housekeeping", 2)
    assert recorder.names().count("pyro_daemon_closed") == 1
    for hook in ("pyro_opened", "pyro_closed", "pyro_daemon_closed", "pyro_housekeeping"):
        assert f"plugin 'failing' failed in {hook}" in caplog.text


def test_a_bind_hook_that_fails_refuses_the_connection() -> None:
    def bind(connection: Any) -> Steps:
        if connection.side == "server":
            raise RuntimeError("cannot bind")
        return Steps()

    with Served(extra_plugins=[make_plugin("failing", pyro_bind=bind)]) as served:
        served.publish(Thing())
        with pytest.raises(Exception, match="rejected: cannot bind"):
            served.proxy().echo(1)


def test_steps_that_fail_make_the_call_fail_and_nothing_else() -> None:
    trouble: list[str] = []

    def step(where: str) -> Any:
        def run(call: Any) -> None:
            if where in trouble:
                raise ValueError(f"{where} broke")

        return run

    def bind(connection: Any) -> Steps:
        if connection.side == "server":
            return Steps(on_received=step("on_received"), before_reply=step("before_reply"))
        return Steps(before_send=step("before_send"), after_reply=step("after_reply"))

    with Served(extra_plugins=[make_plugin("steps", pyro_bind=bind)]) as served:
        served.publish(Thing())
        proxy = served.proxy()
        for where in ("before_send", "on_received", "before_reply", "after_reply"):
            assert proxy.echo(1) == 1
            connection = proxy._pyroConnection
            trouble.append(where)
            with pytest.raises(Exception, match=f"{where} broke"):
                proxy.echo(2)
            trouble.clear()
            assert proxy.echo(3) == 3
            assert proxy._pyroConnection is connection, where


# --------------------------------------------------------------------------- names
def test_the_default_kernel_is_one() -> None:
    assert default_kernel() is default_kernel()
    assert Proxy("PYRO:x@localhost:4")._pyroKernel is default_kernel()


@pytest.mark.feature("F279")
def test_resolve() -> None:
    uri = URI("PYRO:x@localhost:4")
    assert resolve("PYRO:x@localhost:4") == uri
    kernel = make_kernel(extra_plugins=[make_plugin("names", pyro_resolve=lambda uri: URI("PYRO:y@localhost:5"))])
    assert kernel.resolve("PYRONAME:something") == URI("PYRO:y@localhost:5")
    assert kernel.resolve(uri) == uri
    with pytest.raises(URIError, match="invalid uri"):
        kernel.resolve("nonsense")


@pytest.mark.feature("F149", "F155")
def test_server_loops_by_name() -> None:
    kernel = make_kernel(SERVERTYPE="threaded")
    assert kernel.server_factory() is make_kernel().servers["thread"] or "thread" in kernel.server_factory().names
    for wrong in ("multiplx", "nonsense"):
        with pytest.raises(ConfigError, match=f"SERVERTYPE cannot be '{wrong}'"):
            Daemon(memory=True, kernel=make_kernel(SERVERTYPE=wrong))


def test_nothing_accepted_is_refused() -> None:
    with pytest.raises(ConfigError, match="none of the SERIALIZERS_ACCEPTED is loaded"):
        Daemon(memory=True, kernel=make_kernel(SERIALIZERS_ACCEPTED=set()))
    with pytest.raises(SerializeError, match="unknown serializer 'yaml'"):
        Daemon(memory=True, kernel=make_kernel(SERIALIZERS_ACCEPTED={"yaml", "json"}))


def test_tracing(capsys: pytest.CaptureFixture[str]) -> None:
    make_kernel(environ={"PYRO_TRACE_PLUGINS": "1"})
    assert "pyro_configure" in capsys.readouterr().err


def test_making_a_kernel_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_kernel()
    assert caplog.records == []
