"""The tree of errors: Pyro's names keep their places, and every error survives pickling."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import Pyro5.errors
import pytest

from pyroplug.core import errors
from pyroplug.core.errors import PyroError, RemoteError

CLASSES = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, Exception)}
EXAMPLES: list[Exception] = [
    *(cls("some text") for name, cls in CLASSES.items() if name != "RemoteError"),
    errors.ConnectionRefusedByPeer("rejected: go away", "go away"),
    errors.MessageTooLargeError("too large", 10, 5),
    errors.OverloadError("too much", 1.5),
    errors.PluginError("broken", "mine"),
    errors.PluginConflict("twice", "mine"),
    RemoteError("mymod.MyErr", ("mine", 7), {"extra": "info"}),
]


def test_all_of_them_are_listed() -> None:
    assert set(errors.__all__) == set(CLASSES)
    assert all(issubclass(cls, PyroError) for cls in CLASSES.values())


@pytest.mark.parametrize(
    ("name", "parents"),
    [
        ("CommunicationError", (PyroError,)),
        ("ConnectionClosedError", (errors.CommunicationError,)),
        ("TimeoutError", (errors.CommunicationError,)),
        ("ConnectionRefusedByPeer", (errors.CommunicationError,)),
        ("ProtocolError", (errors.CommunicationError,)),
        ("LocalProtocolError", (errors.ProtocolError,)),
        ("RemoteProtocolError", (errors.ProtocolError,)),
        ("MessageTooLargeError", (errors.ProtocolError,)),
        ("SerializeError", (errors.ProtocolError,)),
        ("NamingError", (PyroError,)),
        ("DaemonError", (PyroError,)),
        ("OverloadError", (errors.DaemonError,)),
        ("SecurityError", (PyroError,)),
        ("URIError", (PyroError, ValueError)),
        ("ConfigError", (PyroError, ValueError)),
        ("PluginError", (PyroError,)),
        ("PluginConflict", (errors.PluginError,)),
        ("RemoteError", (PyroError,)),
    ],
)
def test_the_tree_is_as_it_is_drawn(name: str, parents: tuple[type, ...]) -> None:
    assert CLASSES[name].__bases__ == parents
    assert name in (errors.__doc__ or "")


@pytest.mark.interop
@pytest.mark.feature("F114", "F304")
def test_the_names_of_pyro5_have_the_same_ancestors() -> None:
    theirs = {
        name: cls
        for name, cls in vars(Pyro5.errors).items()
        if inspect.isclass(cls) and issubclass(cls, Pyro5.errors.PyroError)
    }
    assert len(theirs) > 8
    for name, cls in theirs.items():
        ancestors = {base.__name__ for base in cls.__mro__ if base.__module__ == "Pyro5.errors"}
        assert ancestors <= {base.__name__ for base in CLASSES[name].__mro__}


def same(one: BaseException, other: BaseException) -> bool:
    """Whether two errors are of one class and carry the same."""
    return type(one) is type(other) and one.args == other.args and vars(one) == vars(other) and str(one) == str(other)


@pytest.mark.feature("F304")
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error: Exception, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))
    assert same(again, error)
    assert again is not error


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying(error: Exception) -> None:
    assert same(copy.copy(error), error)
    assert same(copy.deepcopy(error), error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_attributes_survive_pickling(error: Exception) -> None:
    mine = copy.copy(error)
    mine._pyroTraceback = ["line\n"]  # type: ignore[attr-defined]
    assert same(pickle.loads(pickle.dumps(mine)), mine)


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_an_error_can_be_made_without_arguments(cls: type[Exception]) -> None:
    assert isinstance(str(cls()), str)


def test_facts_are_attributes() -> None:
    assert errors.ConnectionRefusedByPeer("text", "why").reason == "why"
    assert (errors.MessageTooLargeError("text", 10, 5).size, errors.MessageTooLargeError("text", 10, 5).limit) == (
        10,
        5,
    )
    assert errors.OverloadError("text", 1.5).retry_after == 1.5
    assert errors.PluginError("text", "name").plugin == "name"
    assert str(errors.OverloadError("text", 1.5)) == "text"


@pytest.mark.feature("F107")
def test_a_remote_error_carries_everything() -> None:
    error = RemoteError("some.module.MyErr", ["a", 1], {"extra": 2})
    assert str(error) == "some.module.MyErr: a, 1"
    assert error.class_name == "some.module.MyErr"
    assert error.remote_args == ("a", 1)
    assert error.attributes == {"extra": 2}
    assert not hasattr(error, "extra")
    assert str(RemoteError("some.module.MyErr")) == "some.module.MyErr"


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("MyErr", True),
        ("some.module.MyErr", True),
        ("module.MyErr", False),
        ("Err", False),
        ("some", False),
        ("", False),
    ],
)
def test_a_remote_error_is_recognised_by_its_name(name: str, matches: bool) -> None:
    assert RemoteError("some.module.MyErr").matches(name) is matches


def test_the_attributes_of_a_remote_error_are_its_own() -> None:
    attributes: dict[str, Any] = {"extra": 2}
    error = RemoteError("x", (), attributes)
    attributes["more"] = 3
    assert error.attributes == {"extra": 2}
