"""Settings: types, bounds and choices; where a value comes from; what is said about wrong ones."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyroplug.core.errors import ConfigError, PluginConflict, PyroError
from pyroplug.core.kernel import KERNEL_SETTINGS, Kernel
from pyroplug.core.settings import CONTROL_VARIABLES, Schema, Setting, Settings, nearest

BOOL = Setting("A_BOOL", bool, False, "help")
INT = Setting("AN_INT", int, 5, "help", minimum=1, maximum=10)
FLOAT = Setting("A_FLOAT", float, 1.5, "help", minimum=0)
STR = Setting("A_STR", str, "text", "help")
LIST = Setting("A_LIST", list, ["a", "b"], "help")
SET = Setting("A_SET", set, {"a", "b"}, "help")
OPTIONAL = Setting("AN_OPTIONAL", str, None, "help", optional=True)
OPTIONAL_INT = Setting("AN_OPTIONAL_INT", int, 3, "help", optional=True)
CHOICE = Setting("A_CHOICE", str, "red", "help", choices=("red", "green", "blue"))
SECRET = Setting("A_SECRET", str, "", "help", secret=True)
CHECKED = Setting("A_CHECKED", str, "even", "help", check=lambda value: "has an odd length" if len(value) % 2 else None)
ALL = (BOOL, INT, FLOAT, STR, LIST, SET, OPTIONAL, OPTIONAL_INT, CHOICE, SECRET, CHECKED)


def settings(values: dict[str, Any] | None = None, /, **environ: str) -> Settings:
    """Settings of all types; keywords are environment variables without their prefix."""
    return Settings(Schema(ALL), {f"PYRO_{name}": text for name, text in environ.items()}, values)


# ------------------------------------------------------------------------------------------------ reading texts
@pytest.mark.feature("F123", "F259")
@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("A_BOOL", "1", True),
        ("A_BOOL", "yes", True),
        ("A_BOOL", "On", True),
        ("A_BOOL", " TRUE ", True),
        ("A_BOOL", "0", False),
        ("A_BOOL", "no", False),
        ("A_BOOL", "OFF", False),
        ("A_BOOL", "False", False),
        ("A_BOOL", "", False),
        ("AN_INT", "7", 7),
        ("AN_INT", " 7 ", 7),
        ("AN_INT", "", 5),
        ("A_FLOAT", "2", 2.0),
        ("A_FLOAT", "2.5", 2.5),
        ("A_FLOAT", "1e3", 1000.0),
        ("A_FLOAT", "", 1.5),
        ("A_STR", "other", "other"),
        ("A_STR", "", ""),
        ("A_STR", "  padded ", "padded"),
        ("A_LIST", "x, y ,,z", ["x", "y", "z"]),
        ("A_LIST", "", []),
        ("A_SET", "x,y,x", {"x", "y"}),
        ("A_SET", "", set()),
        ("AN_OPTIONAL", "x", "x"),
        ("AN_OPTIONAL", "", None),
        ("AN_OPTIONAL_INT", "", None),
        ("AN_OPTIONAL_INT", "4", 4),
        ("A_CHOICE", "green", "green"),
        ("A_CHECKED", "four", "four"),
    ],
)
def test_an_environment_variable_is_read(name: str, text: str, value: Any) -> None:
    found = settings(None, **{name: text})
    assert getattr(found, name) == value
    assert type(getattr(found, name)) is type(value)
    assert found.origin(name) == "environment"


@pytest.mark.feature("F259")
@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("A_BOOL", "maybe", "1, yes, on, true or 0, no, off, false"),
        ("A_BOOL", "2", "1, yes, on, true or 0, no, off, false"),
        ("AN_INT", "x", "a whole number, at least 1, at most 10"),
        ("AN_INT", "1.5", "a whole number, at least 1, at most 10"),
        ("AN_INT", "0", "at least 1"),
        ("AN_INT", "11", "at most 10"),
        ("A_FLOAT", "x", "a number, at least 0"),
        ("A_FLOAT", "-0.1", "a number, at least 0"),
        ("A_FLOAT", "nan", "a number, at least 0"),
        ("A_FLOAT", "inf", "a number, at least 0"),
        ("A_CHOICE", "rred", "(did you mean 'red'?): allowed is one of 'red', 'green', 'blue'"),
        ("AN_OPTIONAL_INT", "x", "a whole number, or nothing"),
        ("A_CHECKED", "odd", "'odd' has an odd length"),
    ],
)
def test_a_wrong_environment_variable_is_named_with_what_is_allowed(name: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(None, **{name: text})
    assert f"PYRO_{name}" in str(caught.value)
    assert allowed in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PyroError)


# ------------------------------------------------------------------------------------------------ values from code
@pytest.mark.feature("F124", "F258", "F261")
@pytest.mark.parametrize(
    ("name", "given_value", "value"),
    [
        ("A_BOOL", True, True),
        ("A_BOOL", 1, True),
        ("A_BOOL", 0, False),
        ("AN_INT", 1, 1),
        ("AN_INT", 10, 10),
        ("A_FLOAT", 3, 3.0),
        ("A_FLOAT", 0, 0.0),
        ("A_STR", "", ""),
        ("A_LIST", ("x",), ["x"]),
        ("A_LIST", {"x"}, ["x"]),
        ("A_SET", ["x", "x"], {"x"}),
        ("A_SET", frozenset("xy"), {"x", "y"}),
        ("AN_OPTIONAL", None, None),
        ("AN_OPTIONAL_INT", None, None),
    ],
)
def test_a_value_may_be_assigned(name: str, given_value: Any, value: Any) -> None:
    found = settings()
    version = found.version
    setattr(found, name, given_value)
    assert getattr(found, name) == value
    assert type(getattr(found, name)) is type(value)
    assert found.origin(name) == "code"
    assert found.version > version
    assert getattr(settings({name: given_value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A_BOOL", 2),
        ("A_BOOL", "yes"),
        ("A_BOOL", None),
        ("AN_INT", 0),
        ("AN_INT", 11),
        ("AN_INT", 1.0),
        ("AN_INT", True),
        ("AN_INT", "7"),
        ("AN_INT", None),
        ("A_FLOAT", -1),
        ("A_FLOAT", "1"),
        ("A_FLOAT", False),
        ("A_FLOAT", math.nan),
        ("A_FLOAT", math.inf),
        ("A_STR", 1),
        ("A_STR", b"x"),
        ("A_STR", None),
        ("A_LIST", "x,y"),
        ("A_SET", "x"),
        ("A_CHOICE", "yellow"),
        ("A_CHECKED", "odd"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(name: str, value: Any) -> None:
    found = settings()
    before, version = getattr(found, name), found.version
    with pytest.raises(ConfigError, match=f"setting {name}"):
        setattr(found, name, value)
    assert getattr(found, name) == before
    assert found.origin(name) == "default"
    assert found.version == version
    with pytest.raises(ConfigError, match=f"setting {name}"):
        settings({name: value})


@given(st.sampled_from(ALL), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()))
def test_any_value_is_taken_in_its_type_or_refused(setting: Setting, value: Any) -> None:
    try:
        taken = setting.validate(value)
    except ConfigError:
        return
    assert taken is None or type(taken) is setting.type


@given(st.sampled_from(ALL), st.text())
def test_any_text_is_read_in_its_type_or_refused(setting: Setting, text: str) -> None:
    try:
        value = setting.validate(setting.parse(text), setting.variable)
    except ConfigError:
        return
    assert value is None or type(value) is setting.type


# ------------------------------------------------------------------------------------------------ which one wins
@pytest.mark.feature("F258", "F259")
def test_code_wins_over_the_environment_and_that_over_the_default() -> None:
    found = settings({"AN_INT": 9}, AN_INT="8", A_STR="from the environment")
    assert (found.AN_INT, found.A_STR, found.A_FLOAT) == (9, "from the environment", 1.5)
    assert [found.origin(name) for name in ("AN_INT", "A_STR", "A_FLOAT")] == ["code", "environment", "default"]


def test_the_environment_is_read_once() -> None:
    environ = {"PYRO_AN_INT": "7"}
    found = Settings(Schema(ALL), environ)
    environ["PYRO_AN_INT"] = "8"
    found.reset()
    assert found.AN_INT == 7


def test_without_one_given_the_environment_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_AN_INT", "6")
    assert Settings(Schema(ALL)).AN_INT == 6


@pytest.mark.feature("F308")
def test_reset_goes_back_to_the_start() -> None:
    found = settings({"A_STR": "explicit"}, AN_INT="7")
    found.AN_INT, found.A_STR, found.A_BOOL = 1, "x", True
    found.reset()
    assert (found.AN_INT, found.A_STR, found.A_BOOL) == (7, "explicit", False)
    assert [found.origin(name) for name in ("AN_INT", "A_STR", "A_BOOL")] == ["environment", "code", "default"]
    found.reset(useenvironment=False)
    assert (found.AN_INT, found.A_STR) == (5, "explicit")


@pytest.mark.feature("F308")
def test_a_copy_is_independent() -> None:
    found = settings(AN_INT="7")
    found.A_STR = "changed"
    other = found.copy()
    assert other.as_dict() == found.as_dict()
    assert [other.origin(name) for name in ("AN_INT", "A_STR")] == ["environment", "code"]
    other.AN_INT = 1
    other.A_LIST.append("c")
    other.A_SET.add("c")
    assert found.AN_INT == 7
    assert (["a", "b"], {"a", "b"}) == (found.A_LIST, found.A_SET)
    other.reset()
    assert (other.AN_INT, other.A_STR) == (7, "text")


def test_defaults_cannot_be_changed_by_changing_a_value() -> None:
    found = settings()
    found.A_LIST.append("c")
    found.A_SET.add("c")
    assert settings().A_LIST == ["a", "b"]
    assert {"a", "b"} == settings().A_SET
    given_list = ["x"]
    found.A_LIST = given_list
    given_list.append("y")
    assert found.A_LIST == ["x"]


# ------------------------------------------------------------------------------------------------ showing
@pytest.mark.feature("F308")
def test_as_dict_has_all_values_in_order() -> None:
    found = settings(AN_INT="7")
    assert list(found.as_dict()) == sorted(setting.name for setting in ALL)
    assert found.as_dict()["AN_INT"] == 7
    assert found.asDict() == found.as_dict()


@pytest.mark.feature("F119", "F308")
def test_dump_shows_values_and_origins_and_no_secrets() -> None:
    found = settings({"A_SECRET": "hunter2"}, AN_INT="7")
    lines = found.dump().splitlines()
    assert len(lines) == len(ALL)
    assert "AN_INT = 7  [environment]" in lines
    assert "A_FLOAT = 1.5  [default]" in lines
    assert "A_SECRET = (hidden)  [code]" in lines
    assert "hunter2" not in found.dump() + repr(found)
    assert "A_SECRET =   [default]" in settings().dump()  # that there is none is no secret


@pytest.mark.parametrize("value", ["ab", 7])
def test_a_wrong_secret_is_not_shown(value: Any) -> None:
    secret = Setting("A_SECRET", str, "", "help", secret=True, check=lambda text: "is too short" if text else None)
    with pytest.raises(ConfigError, match=r"\(hidden\)") as caught:
        secret.validate(value)
    assert repr(value) not in str(caught.value)


def test_dir_lists_the_settings() -> None:
    assert {"AN_INT", "reset", "dump"} <= set(dir(settings()))


# ------------------------------------------------------------------------------------------------ names
def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    found = settings()
    with pytest.raises(ConfigError, match=r"^there is no setting 'AN_IMT' \(did you mean 'AN_INT'\?\)$"):
        found.AN_IMT = 1
    with pytest.raises(ConfigError, match=r"did you mean 'AN_INT'\?"):
        settings({"AN_IMT": 1})
    with pytest.raises(AttributeError, match=r"there is no setting 'AN_IMT' \(did you mean 'AN_INT'\?\)"):
        _ = found.AN_IMT
    with pytest.raises(AttributeError):
        _ = found._nothing
    assert not hasattr(found, "XYZZY")


def test_nearest_is_silent_when_nothing_is_near() -> None:
    assert nearest("serpant", ["serpent", "json"]) == " (did you mean 'serpent'?)"
    assert nearest("xyzzy", ["serpent", "json"]) == ""
    assert nearest("", []) == ""


@pytest.mark.feature("F324")
def test_unknown_variables_are_warned_about_once_with_the_nearest() -> None:
    schema = Schema(ALL)
    environ = {"PYRO_AN_IMT": "1", "PYRO_OTHER": "2", "PYRO_AN_INT": "3", "HOME": "/", "PYROPLUG_X": ""}
    with pytest.warns(UserWarning, match="unknown environment variable") as caught:
        schema.check_environment(environ)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert text == "unknown environment variable: PYRO_AN_IMT (did you mean 'PYRO_AN_INT'?), PYRO_OTHER"


@pytest.mark.parametrize("value", ["1", "yes", "TRUE"])
def test_unknown_variables_are_errors_when_strict(value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown environment variable: PYRO_AN_IMT \(did you mean 'PYRO_AN_INT'\?\)"
    ):
        Schema(ALL).check_environment({"PYRO_AN_IMT": "1", "PYRO_STRICT_CONFIG": value})


def test_control_variables_are_known() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Schema(ALL).check_environment(dict.fromkeys(CONTROL_VARIABLES, "1") | {"PYRO_AN_INT": "1"})


# ------------------------------------------------------------------------------------------------ the schema
def test_two_owners_of_one_name_are_a_conflict() -> None:
    schema = Schema([Setting("X", int, 1, "help", owner="first")])
    with pytest.raises(PluginConflict, match="setting X is declared by 'first' and by 'second'") as caught:
        schema.add(Setting("X", int, 1, "help", owner="second"))
    assert caught.value.plugin == "second"
    schema.add(Setting("X", int, 2, "help", owner="first"))
    assert schema["X"].default == 2


@pytest.mark.parametrize("name", ["lower", "Mixed", "1", ""])
def test_names_are_in_capitals(name: str) -> None:
    with pytest.raises(PluginConflict, match="must be in capitals"):
        Schema([Setting(name, int, 1, "help", owner="someone")])


def test_a_default_must_be_allowed() -> None:
    with pytest.raises(ConfigError, match="setting X cannot be 0"):
        Schema([Setting("X", int, 0, "help", minimum=1)])


def test_a_schema_knows_its_settings() -> None:
    schema = Schema(ALL)
    assert [setting.name for setting in schema] == sorted(setting.name for setting in ALL)
    assert "AN_INT" in schema
    assert "NO" not in schema
    assert schema["AN_INT"] is INT
    assert INT.variable == "PYRO_AN_INT"
    with pytest.raises(ConfigError, match=r"did you mean 'AN_INT'\?"):
        _ = schema["AN_INTT"]


def test_a_setting_declared_later_gets_its_value_at_once() -> None:
    found = settings(LATE="8")
    assert not hasattr(found, "LATE")
    found.declare(Setting("LATE", int, 1, "help"))
    assert found.LATE == 8
    assert found.origin("LATE") == "environment"


def test_kernels_do_not_share_the_settings_of_plugins() -> None:
    one, two = Kernel(environ={}), Kernel(environ={})
    one.settings.COMPRESSION = True
    assert two.settings.COMPRESSION is False
    one.close()
    two.close()


# ------------------------------------------------------------------------------------------------ the kernel's own
@pytest.mark.parametrize("setting", KERNEL_SETTINGS, ids=lambda setting: setting.name)
def test_the_kernel_s_settings_are_sound(setting: Setting) -> None:
    assert setting.validate(setting.default) == setting.default
    assert setting.help
    assert setting.owner == "kernel"
    assert setting.allowed()


@pytest.mark.feature("F228")
def test_the_defaults_are_safe() -> None:
    kernel = Kernel(environ={})
    assert kernel.settings.HOST == "localhost"
    assert kernel.settings.SERIALIZER == "serpent"
    assert {"serpent", "json", "msgpack"} == kernel.settings.SERIALIZERS_ACCEPTED
    assert all(kernel.serializers[name].safe for name in kernel.settings.SERIALIZERS_ACCEPTED)
    assert kernel.settings.HANDSHAKE_TIMEOUT > 0
    assert kernel.settings.DETAILED_TRACEBACK is False
    kernel.close()


@pytest.mark.feature("F121", "F124")
def test_serializers_may_be_added_to_the_accepted_ones_in_place() -> None:
    """Pyro4 programs say ``config.SERIALIZERS_ACCEPTED.add("marshal")``."""
    kernel = Kernel(environ={})
    assert set(kernel.server_plan().names.values()) == {"serpent", "json", "msgpack"}
    kernel.settings.SERIALIZERS_ACCEPTED.add("marshal")
    assert set(kernel.server_plan().names.values()) == {"serpent", "json", "msgpack", "marshal"}
    kernel.settings.SERIALIZERS_ACCEPTED.discard("marshal")
    assert set(kernel.server_plan().names.values()) == {"serpent", "json", "msgpack"}
    kernel.close()


@pytest.mark.feature("F120", "F123")
@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"PYRO_SERVERTYPE": "threaded!"}, "SERVERTYPE"),
        ({"PYRO_MAX_MESSAGE_SIZE": "0"}, "PYRO_MAX_MESSAGE_SIZE cannot be 0: allowed is a whole number, at least 1024"),
        ({"PYRO_COMMTIMEOUT": "soon"}, "PYRO_COMMTIMEOUT cannot be 'soon': allowed is a number, at least 0"),
    ],
)
def test_a_wrong_variable_is_reported_by_the_kernel(environ: dict[str, str], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Kernel(environ=environ).server_factory()


@pytest.mark.feature("F123", "F259", "F261")
def test_a_program_gets_its_settings_from_its_environment() -> None:
    code = "from pyroplug.api import config; print(config.SERIALIZER, config.COMMTIMEOUT, config.origin('COMMTIMEOUT'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYRO_SERIALIZER": "json", "PYRO_COMMTIMEOUT": "2.5"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["json", "2.5", "environment"]
