"""How objects of classes become plain data, and how plain data becomes objects again.

Serializers carry numbers, texts and containers.  Everything else is turned into a dict with the key
``__class__`` by the :class:`TypeTable` of the kernel, and back by the receiver's.  What a peer can make
appear here is a closed list: what was registered, addresses, and exceptions that derive from
:class:`Exception`.  An exception of a class that this side does not know becomes a
:class:`~pyroplug.core.errors.RemoteError`; any other unknown class is refused.
"""

from __future__ import annotations

import builtins
import enum
import io
import struct
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from . import errors
from .errors import PyroError, RemoteError, SecurityError, SerializeError
from .uri import URI

__all__ = ["DEFAULT_DEPTH", "NOT_REPLACED", "ExceptionWrapper", "TypeTable", "too_deep"]

DEFAULT_DEPTH = 200
"""How many containers may be open at once when the kernel has no setting MAX_NESTING_DEPTH."""

ToDict = Callable[[Any], Any]
FromDict = Callable[[str, "dict[str, Any]"], Any]


class _NotReplaced(enum.Enum):
    NOT_REPLACED = "NOT_REPLACED"

    def __repr__(self) -> str:
        return "NOT_REPLACED"


NOT_REPLACED: Final = _NotReplaced.NOT_REPLACED
"""What a replacement function returns to have the object sent as it is."""


class ExceptionWrapper:
    """An exception in the place of a result, in the list of results that answers a batch."""

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception

    def raise_it(self) -> NoReturn:
        """Raise the exception."""
        raise self.exception

    raiseIt = raise_it

    def __repr__(self) -> str:
        return f"<ExceptionWrapper of {self.exception!r}>"


def too_deep(limit: int) -> SerializeError:
    """The error for a value with more than ``limit`` containers inside each other."""
    return SerializeError(f"nested too deeply (limit {limit}, MAX_NESTING_DEPTH), or a value that contains itself")


# --------------------------------------------------------------------------- fixed knowledge
_BUILTIN_EXCEPTIONS: Mapping[str, type[Exception]] = {
    name: cls for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, Exception)
}
# what is left: SystemExit, KeyboardInterrupt and their like, which would end the thread that receives them
_DEADLY = frozenset(
    f"{prefix}{name}"
    for name, cls in vars(builtins).items()
    if isinstance(cls, type) and issubclass(cls, BaseException) and not issubclass(cls, Exception)
    for prefix in ("", "builtins.", "exceptions.")
)
_OUR_ERRORS: Mapping[str, type[PyroError]] = {
    name: cls
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, PyroError) and cls is not RemoteError
}
_PYRO_ERROR_NAMES = frozenset(
    {
        "CommunicationError",
        "ConnectionClosedError",
        "DaemonError",
        "MessageTooLargeError",
        "NamingError",
        "ProtocolError",
        "PyroError",
        "SecurityError",
        "SerializeError",
        "TimeoutError",
    }
)
_ERROR_SPACES = ("Pyro5.errors.", "Pyro4.errors.")
_WRAPPERS = frozenset({"Pyro5.core._ExceptionWrapper", "Pyro4.futures._ExceptionWrapper"})
_URIS = frozenset({"Pyro5.core.URI", "Pyro4.core.URI"})
_CONTAINERS = frozenset({dict, list, tuple})  # what a tagged dict can lie in: members of a set are hashable
_PLAIN = frozenset({str, bytes, int, float, bool, type(None), list, tuple, dict, set})
_NEVER = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type,
    io.IOBase,
)  # they have vars(), but these do not describe them: the receiver could only fail

TRACEBACK = "_pyroTraceback"
PRECISE = "_pyroplugClass"
TYPE = "_pyroplugType"
LINKED = "_pyroplugLinked"
_LINKS = 100
"""How many causes, contexts and members of groups travel with one exception, all together."""
_LINK_DEPTH = 12
"""How many of them in a row."""
_LINK_COST = 8
"""How many levels of nesting each of them counts for on arrival."""
_ITEMS, _TEXT = 100, 4000
"""How much of their data travels: items of one container, characters of one text."""
_GROUP: type[Exception] | None = _BUILTIN_EXCEPTIONS.get("ExceptionGroup")  # since Python 3.11
_ANY_GROUP: type[BaseException] | None = getattr(builtins, "BaseExceptionGroup", None)
_OBJECT_GETSTATE = getattr(object, "__getstate__", None)  # exists since Python 3.11 and is not the user's


class _WhenComplete:
    """Marks a converter that gets dicts whose contents were converted already."""

    __slots__ = ("converter",)

    def __init__(self, converter: FromDict) -> None:
        self.converter = converter

    def __call__(self, name: str, data: dict[str, Any]) -> Any:
        return self.converter(name, data)


class TypeTable:
    """One kernel's converters between classes and the dicts that travel.

    Registering is safe at any time and from any thread, and has effect for the next value that is
    converted; converting takes no lock.

    :param base: a table to extend: what is registered there, at any time, counts here too and comes first
    """

    keeps_keys = False
    """Whether both ends can do with dicts whose keys some serializer has no form for."""

    def __init__(self, base: TypeTable | None = None) -> None:
        self._lock = threading.Lock()
        self._base = base
        self._remark = ""
        # never changed in place, so that readers need no lock
        self._to_dict: dict[type, ToDict] = {} if base else {URI: _uri_to_dict, ExceptionWrapper: self._wrapper_to_dict}
        self._from_dict: dict[str, FromDict] = {}
        self._replacements: dict[type, ToDict] = {}
        self._exceptions: tuple[Mapping[type, str], Mapping[str, type[Exception]]] = ({}, {})
        self._joined: tuple[Any, Any, dict[str, FromDict]] = (None, None, {})

    # ------------------------------------------------------------------ registration
    def register_class_to_dict(self, cls: type, converter: ToDict, serpent_too: bool = True) -> None:
        """Have ``converter(obj)`` make the dict for objects of ``cls`` and its subclasses.

        The first registered class that an object is an instance of decides.  The dict should have the key
        ``__class__``, which is what the receiver's converter is found by.  ``serpent_too`` is Pyro's and
        has no effect: every serializer uses the same table.
        """
        _check_class(cls)
        with self._lock:
            self._to_dict = {**self._to_dict, cls: converter}

    def unregister_class_to_dict(self, cls: type) -> None:
        """Forget the converter of ``cls``; nothing happens when there is none."""
        with self._lock:
            self._to_dict = {known: converter for known, converter in self._to_dict.items() if known is not cls}

    def register_dict_to_class(self, class_name: str, converter: FromDict, *, inner_first: bool = False) -> None:
        """Have ``converter(class_name, dict)`` make the object for dicts whose ``__class__`` is ``class_name``.

        Tagged dicts inside the dict come as they are, except with msgpack, which has converted them (both
        is what Pyro does); :meth:`recreate` converts them.  ``inner_first`` has them converted always.
        """
        if not isinstance(class_name, str):
            raise TypeError(f"a class name is a text, not {class_name!r}")
        if inner_first:
            converter = _WhenComplete(converter)
        with self._lock:
            self._from_dict = {**self._from_dict, class_name: converter}

    def unregister_dict_to_class(self, class_name: str) -> None:
        """Forget the converter of ``class_name``; nothing happens when there is none."""
        with self._lock:
            self._from_dict = {name: known for name, known in self._from_dict.items() if name != class_name}

    def register_replacement(self, cls: type, replace: ToDict) -> None:
        """Have ``replace(obj)`` send another object in the place of those of ``cls`` and its subclasses.

        It returns :data:`NOT_REPLACED` to have the object sent as it is.  The nearest class of an object's
        inheritance order decides.  Values of the exact built-in types, and calls by marshal, never get here.
        """
        _check_class(cls)
        with self._lock:
            self._replacements = {**self._replacements, cls: replace}

    def unregister_replacement(self, cls: type) -> None:
        """Forget the replacement of ``cls``; nothing happens when there is none."""
        with self._lock:
            self._replacements = {known: replace for known, replace in self._replacements.items() if known is not cls}

    def register_exception(self, cls: type[Exception], name: str) -> None:
        """Have exceptions of exactly this class arrive as what the receiver registered under ``name``.

        Receivers that registered nothing get what they get of any class that they do not know.

        :raises ValueError: the name or the class is registered already for something else
        """
        if not issubclass(cls, Exception):
            raise ValueError(f"expected a class of exceptions, got {cls!r}")
        with self._lock:
            names, classes = self._exceptions
            if classes.get(name, cls) is not cls or names.get(cls, name) != name:
                raise ValueError(f"the exception {cls!r} or the name {name!r} is registered already")
            self._exceptions = {**names, cls: name}, {**classes, name: cls}

    # ------------------------------------------------------------------ objects to dicts
    @property
    def has_replacements(self) -> bool:
        """Whether :meth:`replace` can have any effect."""
        return bool(self._replacements) or (self._base is not None and self._base.has_replacements)

    def replace(self, obj: Any) -> Any:
        """What is to be sent in the place of ``obj``, or :data:`NOT_REPLACED`."""
        if self._base is not None:
            other = self._base.replace(obj)
            if other is not NOT_REPLACED:
                return other
        replacements = self._replacements
        if replacements:
            for cls in type(obj).__mro__:
                if cls in replacements:
                    return replacements[cls](obj)
        return NOT_REPLACED

    def registered(self, obj: Any) -> Any:
        """What the registered converter makes of ``obj``, or :data:`NOT_REPLACED` when none is registered."""
        if self._base is not None:
            form = self._base.registered(obj)
            if form is not NOT_REPLACED:
                return form
        for cls, converter in self._to_dict.items():
            if isinstance(obj, cls):
                return converter(obj)
        return NOT_REPLACED

    def is_registered(self, obj: Any) -> bool:
        """Whether a converter is registered for ``obj``."""
        return any(isinstance(obj, cls) for cls in self._to_dict) or (
            self._base is not None and self._base.is_registered(obj)
        )

    def to_dict(self, obj: Any, serializer: str) -> Any:
        """The data that travels for an object, for the serializer of that name; the object is not changed.

        In this order: its replacement, its registered converter, the exception form, a ``__getstate__`` of
        its own that returns a dict, its attributes, its slots.

        :raises SerializeError: none of these exists
        """
        if serializer != "marshal":
            other = self.replace(obj)
            if other is not NOT_REPLACED:
                if type(other) in _PLAIN:
                    return other
                obj = other
        form = self.registered(obj)
        return self.default_form(obj, serializer) if form is NOT_REPLACED else form

    def default_form(self, obj: Any, serializer: str) -> Any:
        """:meth:`to_dict` without what was registered."""
        if isinstance(obj, BaseException):
            return self.exception_to_dict(obj)
        cls = type(obj)
        if isinstance(obj, _NEVER) or getattr(cls, "_pyroNoState", False):
            raise _unknown(obj, serializer, self.remark)
        getstate = getattr(cls, "__getstate__", None)
        if getstate is not None and getstate is not _OBJECT_GETSTATE:
            state = obj.__getstate__()
            if isinstance(state, dict):
                # the serpent library tags such dicts, Pyro's other serializers do not
                return (
                    {**state, "__class__": _name(cls)}
                    if serializer == "serpent" and "__class__" not in state
                    else state
                )
            if serializer == "serpent":
                return state
        try:
            value: dict[str, Any] = dict(vars(obj))
        except TypeError:
            if not hasattr(cls, "__slots__"):
                raise _unknown(obj, serializer, self.remark) from None
            value = dict(_slots(obj))
        if "_pyroDaemon" in value:
            value["_pyroDaemon"] = None
        value["__class__"] = _name(cls)
        return value

    # ------------------------------------------------------------------ exceptions to dicts
    def exception_to_dict(self, exc: BaseException, traceback_lines: Sequence[str] | None = None) -> dict[str, Any]:
        """The dict that an exception travels as, whether it was raised, returned or lies inside a value.

        ``traceback_lines`` become the attribute ``_pyroTraceback``; without them one that the exception has
        already stays.  The dict shares nothing changeable with the exception but the attributes' values.

        Its causes, and the members of an exception group, become one more attribute, of plain data with a
        limited size: receivers that do not know it have an attribute more, and nothing else.
        """
        form = self._exception_form(exc)
        attributes = form["attributes"]
        if _is_group(exc) or exc.__cause__ is not None or exc.__context__ is not None:
            linked = self._linked(exc, _LINK_DEPTH, [_LINKS], {id(exc)})
            if linked:
                attributes[LINKED] = linked
        if traceback_lines is not None:
            attributes[TRACEBACK] = list(traceback_lines)
        return form

    def _exception_form(self, exc: BaseException) -> dict[str, Any]:
        attributes = {name: value for name, value in _slots(exc) if not name.startswith("__")}
        attributes.update(vars(exc))
        name, args = _name(type(exc)), exc.args
        precise = ""
        if isinstance(exc, RemoteError) and exc.class_name:
            # goes on as what it was, so that a chain of servers changes nothing
            name, args = exc.class_name, exc.remote_args
            trace = attributes.get(TRACEBACK)
            attributes = dict(exc.attributes)
            if trace is not None:
                attributes[TRACEBACK] = trace
            if name in _DEADLY:
                name, precise = "Pyro5.errors.PyroError", name
        elif _is_group(exc):
            # old clients could not make one: its members would be dicts there
            args = (_group_text(exc),)
            name, precise = "Pyro5.errors.PyroError", name
        elif not isinstance(exc, Exception):
            # old clients would raise SystemExit and the like in the caller's thread
            args = (f"method raised {type(exc).__name__}: {_text(exc)}",)
            name, precise = "Pyro5.errors.PyroError", name
        elif type(exc).__module__ == errors.__name__:
            nearest = next(c for c in type(exc).__mro__ if c.__name__ in _PYRO_ERROR_NAMES)
            name = f"Pyro5.errors.{nearest.__name__}"
            precise = "" if nearest is type(exc) else type(exc).__name__
        if precise:
            attributes[PRECISE] = precise
        registered = self._known_exceptions[0].get(type(exc))
        if registered is not None:
            attributes[TYPE] = registered
        return {"__class__": name, "__exception__": True, "args": args, "attributes": attributes}

    def _linked(self, exc: BaseException, left: int, budget: list[int], seen: set[int]) -> dict[str, Any]:
        """The exceptions that belong to one, as plain data: those before it, and the members of a group."""
        linked: dict[str, Any] = {}
        chain: list[dict[str, Any]] = []
        current = exc
        while left > len(chain):
            how, other = "cause", current.__cause__
            if other is None and not current.__suppress_context__:
                how, other = "context", current.__context__
            if other is None or id(other) in seen or budget[0] <= 0:
                break
            chain.append({"how": how, **self._link(other, left - len(chain) - 1, budget, seen)})
            current = other
        if chain:
            linked["chain"] = chain
        if _is_group(exc) and left > 0:
            group: Any = exc
            linked["message"] = str(group.message)[:_TEXT]
            linked["members"] = members = []
            for member in group.exceptions:
                if budget[0] <= 0:
                    break
                link = self._link(member, left - 1, budget, seen)
                more = self._linked(member, left - 1, budget, seen).get("chain")
                members.append({**link, "chain": more} if more else link)
        return linked

    def _link(self, exc: BaseException, left: int, budget: list[int], seen: set[int]) -> dict[str, Any]:
        budget[0] -= 1
        seen.add(id(exc))
        form = self._exception_form(exc)
        attributes = {key: value for key, value in form["attributes"].items() if key != TRACEBACK}
        link = {
            "class": form["__class__"],
            "args": _plain_data(list(form["args"]), 4),
            "attributes": _plain_data(attributes, 4),
        }
        if _is_group(exc) and left > 0:
            inner = self._linked(exc, left - 1, budget, seen)
            link.update({key: inner[key] for key in ("message", "members") if key in inner})
        return link

    def exception_to_plain_dict(
        self, exc: BaseException, traceback_lines: Sequence[str], why: object
    ) -> dict[str, Any]:
        """The form of an exception that cannot be encoded because of ``why``: only texts, every serializer can."""
        text = f"Error serializing exception: {_text(why)}. Original exception: {type(exc)}: {_text(exc)}"
        return {
            "__class__": "Pyro5.errors.PyroError",
            "__exception__": True,
            "args": (text,),
            "attributes": {TRACEBACK: list(traceback_lines)},
        }

    def _wrapper_to_dict(self, wrapper: ExceptionWrapper) -> dict[str, Any]:
        # what was registered for the exception's class counts here as well
        exception = self.to_dict(wrapper.exception, "wrapper")
        return {"__class__": "Pyro5.core._ExceptionWrapper", "exception": exception}

    # ------------------------------------------------------------------ dicts to objects
    def recreate(self, value: Any, max_depth: int = DEFAULT_DEPTH, *, inner_first: bool = False) -> Any:
        """``value`` with every tagged dict in it turned into its object; containers may be changed in place.

        ``inner_first`` gives registered converters dicts whose contents were converted already.

        :raises SerializeError: an unknown class, or more than ``max_depth`` containers inside each other
        :raises SecurityError: a class name that must not come from outside
        """
        return _Recreator(self, max_depth, inner_first).walk(value, max_depth)

    def from_dict(self, data: Any) -> Any:
        """The object for a tagged dict; anything else comes back as it is.

        :raises SerializeError: no class of that name can be made here
        :raises SecurityError: the name has a double underscore and nobody registered it
        """
        if not isinstance(data, dict) or "__class__" not in data:
            return data
        return _Recreator(self, DEFAULT_DEPTH, False).make(data, DEFAULT_DEPTH)

    def refusal(self, name: str) -> SerializeError:
        """The error for a class that no object can be made of here."""
        return SerializeError(f"unsupported serialized class: {name}{self.remark}")

    @property
    def remark(self) -> str:
        """What may be the reason, for error texts: plugins that somebody has switched off."""
        return self._remark if self._base is None else self._base.remark

    @remark.setter
    def remark(self, text: str) -> None:
        self._remark = text

    @property
    def converters(self) -> Mapping[str, FromDict]:
        """What makes objects, by class name, those of the base included."""
        if self._base is None:
            return self._from_dict
        own, below = self._from_dict, self._base.converters
        if self._joined[0] is not own or self._joined[1] is not below:
            self._joined = (own, below, {**own, **below})
        return self._joined[2]

    @property
    def _known_exceptions(self) -> tuple[Mapping[type, str], Mapping[str, type[Exception]]]:
        return self._exceptions if self._base is None else self._base._known_exceptions


class _Recreator:
    """One run over one decoded value."""

    __slots__ = ("_converters", "_inner_first", "_max_depth", "_table")

    def __init__(self, table: TypeTable, max_depth: int, inner_first: bool) -> None:
        self._table = table
        self._converters = table.converters
        self._max_depth = max_depth
        self._inner_first = inner_first

    def walk(self, value: Any, left: int) -> Any:
        kind = type(value)
        if kind not in _CONTAINERS:
            return value
        if left <= 0:
            raise too_deep(self._max_depth)
        if kind is dict:
            return self.make(value, left) if "__class__" in value else self._walk_dict(value, left)
        if kind is list:
            for index, item in enumerate(value):
                if type(item) in _CONTAINERS:
                    value[index] = self.walk(item, left - 1)
            return value
        return tuple([self.walk(item, left - 1) for item in value])

    def _walk_dict(self, value: dict[Any, Any], left: int) -> dict[Any, Any]:
        for key, item in value.items():
            if type(item) in _CONTAINERS:
                value[key] = self.walk(item, left - 1)
        return value

    def make(self, data: dict[Any, Any], left: int) -> Any:
        """The object for a dict that has a class tag."""
        name = data["__class__"]
        if not isinstance(name, str):
            return self._walk_dict(data, left)  # an ordinary dict that happens to have this key
        converter = self._converters.get(name)
        if converter is not None:
            if self._inner_first or type(converter) is _WhenComplete:
                self._walk_dict(data, left)
            return _convert(converter, name, data)
        if name in _URIS:
            return _make_uri(data.get("state"))
        if name in _WRAPPERS:
            inner = self.walk(data.get("exception"), left - 1)
            if not isinstance(inner, BaseException):
                raise SerializeError(f"invalid {name}: there is no exception in it")
            return ExceptionWrapper(inner)
        is_exception = bool(data.get("__exception__")) or name == "struct.error" or name.startswith(_ERROR_SPACES)
        if is_exception:
            return self._make_exception(name, data, left)
        if "__" in name:
            raise SecurityError(f"refused to deserialize types with double underscores in their name: {name}")
        make = _VALUES.get(name)
        if make is None:
            raise self._table.refusal(name)
        try:
            return make(self._walk_dict(data, left))
        except (TypeError, ValueError, KeyError, OverflowError) as err:
            raise SerializeError(f"invalid serialized {name}: {_text(err)}") from err

    def _make_exception(self, name: str, data: dict[Any, Any], left: int) -> Exception:
        raw_args, raw_attributes = data.get("args"), data.get("attributes")
        args = tuple(self._lenient(arg, left - 1) for arg in raw_args) if isinstance(raw_args, (list, tuple)) else ()
        attributes = (
            {
                key: self._lenient(value, left - 1)
                for key, value in raw_attributes.items()
                if isinstance(key, str) and key != LINKED
            }
            if isinstance(raw_attributes, dict)
            else {}
        )
        linked = raw_attributes.get(LINKED) if isinstance(raw_attributes, dict) else None
        if not isinstance(linked, dict):
            linked = {}
        members = self._members(linked, left)
        has_trace, trace = TRACEBACK in attributes, _lines(attributes.pop(TRACEBACK, None))
        precise = attributes.pop(PRECISE, None)
        registered = attributes.pop(TYPE, None)
        cls: type[Exception] | None = None
        if isinstance(registered, str):
            cls = self._table._known_exceptions[1].get(registered)
        if cls is not None:
            exc = _build_group(cls, linked, members) or _build_registered(cls, args)
        else:
            if isinstance(precise, str):
                cls, name = _OUR_ERRORS.get(precise), precise
            else:
                cls = _exception_class(name)
            exc = _build(cls, args) if cls is not None else _build_group(_GROUP, linked, members)
        if exc is None:
            exc = RemoteError(name, args, attributes)
            attributes = {"__notes__": attributes["__notes__"]} if "__notes__" in attributes else {}
        for key, value in attributes.items():
            _set_attribute(exc, key, value)
        if has_trace:
            _set_attribute(exc, TRACEBACK, trace)
        if members and not _is_group(exc):  # a Python that has no groups
            _set_attribute(exc, "exceptions", tuple(members))
        self._link(exc, linked.get("chain"), left)
        return exc

    def _members(self, linked: dict[Any, Any], left: int) -> list[Exception]:
        members = linked.get("members")
        made = [self._linked(link, left) for link in members] if isinstance(members, (list, tuple)) else []
        return [exc for exc in made if exc is not None]

    def _link(self, exc: BaseException, chain: Any, left: int) -> None:
        """Put the exceptions before ``exc`` where they were."""
        for link in chain if isinstance(chain, (list, tuple)) else ():
            other = self._linked(link, left)
            if other is None:
                return
            if link.get("how") == "cause":
                exc.__cause__ = other
            else:
                exc.__context__ = other
            exc = other

    def _linked(self, link: Any, left: int) -> Exception | None:
        name = link.get("class") if isinstance(link, dict) else None
        left -= _LINK_COST
        if left <= 0 or not isinstance(name, str):
            return None
        attributes, args = link.get("attributes"), link.get("args")
        data = {
            "__class__": name,
            "__exception__": True,
            "args": args,
            "attributes": {**(attributes if isinstance(attributes, dict) else {}), LINKED: link},
        }
        made = self._lenient(data, left)
        if isinstance(made, Exception):
            return made
        # a converter of the program can make anything, or fail
        return RemoteError(name, tuple(args) if isinstance(args, (list, tuple)) else ())

    def _lenient(self, value: Any, left: int) -> Any:
        # a part of an exception that cannot be made is worth less than the report that something failed
        try:
            return self.walk(value, left)
        except PyroError:
            return value


# --------------------------------------------------------------------------- parts
def _check_class(cls: object) -> None:
    if not isinstance(cls, type) or cls is type:
        raise ValueError(f"expected a class (and not 'type' itself), got {cls!r}")


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without a text>"


def _unknown(obj: object, serializer: str, remark: str) -> SerializeError:
    return SerializeError(
        f"don't know how to serialize class {type(obj)} using serializer {serializer}."
        f" Give it vars() or an appropriate __getstate__, or register a converter for it{remark}"
    )


def _slots(obj: object) -> Iterator[tuple[str, Any]]:
    for cls in reversed(type(obj).__mro__):
        names: str | Iterable[str] = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name in ("__dict__", "__weakref__"):
                continue
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{cls.__name__.lstrip('_')}{name}"  # how Python mangles private names
            if hasattr(obj, name):
                yield name, getattr(obj, name)


def _uri_to_dict(uri: URI) -> dict[str, Any]:
    return {"__class__": "Pyro5.core.URI", "state": uri.__getstate__()}


def _make_uri(state: Any) -> URI:
    if isinstance(state, (list, tuple)) and len(state) == 5:
        protocol, object_id, sockname, host, port = state
        if isinstance(object_id, (list, tuple, set, frozenset)):
            object_id = set(object_id) if all(isinstance(tag, str) for tag in object_id) else None
        if (
            isinstance(protocol, str)
            and isinstance(object_id, (str, set))
            and isinstance(sockname, (str, type(None)))
            and isinstance(host, (str, type(None)))
            and (port is None or (type(port) is int and 0 <= port <= 65535))
        ):
            return URI.build(protocol, object_id, sockname, host, port)
    raise SerializeError("invalid serialized URI: the state has to be (protocol, object, sockname, host, port)")


def _number(value: Any) -> float:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no number")


# ``inf`` and ``nan`` have no literal, and OrderedDict no short form, in the text that serpent writes
_VALUES: Mapping[str, Callable[[dict[Any, Any]], Any]] = {
    "float": lambda data: _number(data["value"]),
    "complex": lambda data: complex(_number(data["real"]), _number(data["imag"])),
    "collections.OrderedDict": lambda data: OrderedDict((key, value) for key, value in data["items"]),
}


def _convert(converter: FromDict, name: str, data: dict[str, Any]) -> Any:
    try:
        return converter(name, data)
    except PyroError:
        raise
    except Exception as err:  # the converter is the user's
        raise SerializeError(f"the converter for class {name} failed: {type(err).__name__}: {_text(err)}") from err


def _exception_class(name: str) -> type[Exception] | None:
    if name == "struct.error":
        return struct.error
    space, _, short = name.rpartition(".")
    if f"{space}." in _ERROR_SPACES:
        return _OUR_ERRORS.get(short)
    if not space:
        return _OUR_ERRORS.get(short) or _BUILTIN_EXCEPTIONS.get(short)
    if space in ("builtins", "exceptions"):
        return _BUILTIN_EXCEPTIONS.get(short)
    if space == "sqlite3" and short.endswith("Error"):
        try:
            import sqlite3
        except ImportError:  # Python can be built without it
            return None
        found = getattr(sqlite3, short, None)
        return found if isinstance(found, type) and issubclass(found, Exception) else None
    return None


def _build(cls: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    try:
        exc = cls(*args)
    except Exception:
        return None
    return exc if isinstance(exc, cls) else None


def _build_group(cls: type[Exception] | None, linked: Mapping[Any, Any], members: list[Exception]) -> Exception | None:
    if cls is None or _GROUP is None or not issubclass(cls, _GROUP) or not members:
        return None
    return _build(cls, (str(linked.get("message")), members))


def _build_registered(cls: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    exc = _build(cls, args)
    if exc is not None:
        return exc
    try:
        # its __init__ wants something else than the arguments it kept: the attributes make up for that
        exc = cls.__new__(cls, *args)
        exc.args = args
    except Exception:
        return None
    return exc if isinstance(exc, cls) else None


def _is_group(exc: BaseException) -> bool:
    return _ANY_GROUP is not None and isinstance(exc, _ANY_GROUP)


def _group_text(exc: BaseException) -> str:
    members = getattr(exc, "exceptions", ())
    lines = [f"  {type(member).__name__}: {_text(member)}" for member in members[:_ITEMS]]
    return "\n".join([f"{type(exc).__name__}: {_text(exc)}", *lines])[:_TEXT]


def _plain_data(value: Any, left: int) -> Any:
    """``value`` as something that every serializer of every peer carries; what is no plain data becomes text."""
    if value is None or isinstance(value, bool):
        return value
    kind = type(value)
    if kind is float or (kind is int and -(2**63) <= value < 2**64):
        return value
    if kind is str:
        return value[:_TEXT]
    if left > 0 and kind in (list, tuple):
        return [_plain_data(item, left - 1) for item in value[:_ITEMS]]
    if left > 0 and kind is dict and "__class__" not in value:
        items = list(value.items())[:_ITEMS]
        return {key[:_TEXT]: _plain_data(item, left - 1) for key, item in items if type(key) is str}
    try:
        return repr(value)[:_TEXT]
    except Exception:  # a broken __repr__ of the program
        return f"<{kind.__name__} without a text>"


def _lines(trace: Any) -> list[str] | None:
    if isinstance(trace, str):
        return trace.splitlines(keepends=True)
    if isinstance(trace, (list, tuple)):
        return [line for line in trace if isinstance(line, str)]
    return None


def _set_attribute(exc: BaseException, name: str, value: Any) -> None:
    if name == "__notes__":
        if not isinstance(value, (list, tuple)):
            return
        value = [note for note in value if isinstance(note, str)]
    elif name.startswith("__") or callable(getattr(type(exc), name, None)):
        return  # would replace with_traceback() and the like
    try:
        setattr(exc, name, value)
    except Exception:
        return
