"""Value classes: records whose fields never change, and which are equal if their fields are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from pathlib import PurePath
from typing import Any, TypeVar, cast, dataclass_transform

_Class = TypeVar("_Class", bound=type)
_Function = TypeVar("_Function", bound=Callable[..., object])


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value_class(cls: _Class) -> _Class:
    """Makes a dataclass that type checkers know as a frozen one, in a quarter of the time that
    ``dataclass(frozen=True)`` takes.

    That one compiles six methods for every class, which was a third of a start of mdl. This one compiles ``__init__``
    alone, and only when it is first asked for (ADR 45, ADR 119); the others are shared. To set a field of a value
    raises ``FrozenInstanceError``. ``fields``, ``replace``, ``field(compare=False)`` and ``field(repr=False)`` work as
    ever.
    """
    return _made(cls, slots=False)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def small_value_class(cls: _Class) -> _Class:
    """As `value_class`, with slots, which save 50 bytes: for the classes of which a model of 100,000 files has as many
    values. Such a value has no ``vars``; `facts_of` gives its fields."""
    return _made(cls, slots=True)


def shows_keywords(options: type, about: str = "") -> Callable[[_Function], _Function]:
    """Have ``help`` of a function name every keyword of the typed dictionary ``options`` in place of ``**options``;
    ``about`` is added to its docstring."""

    def shown(function: _Function) -> _Function:
        own = inspect.signature(function)
        parameters = list(own.parameters.values())[:-1]
        for name in options.__annotations__:
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None))
        function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        if about:
            function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{about}"
        return function

    return shown


def facts_of(value: Any) -> dict[str, Any]:
    """The fields of a value by their names."""
    return {name: getattr(value, name) for name in value.__match_args__}


def _made(cls: _Class, *, slots: bool) -> _Class:
    made: Any = dataclass(init=False, eq=False, repr=False, slots=slots)(cls)
    made.__init__ = _Init(made, slots=slots)
    compared = [one.name for one in fields(made) if one.compare]
    key: Callable[[Any], Any] = attrgetter(*compared) if compared else lambda _: ()
    own = cls.__dict__
    if "__repr__" not in own:
        made.__repr__ = _repr
    if "__eq__" not in own:
        made.__eq__ = _eq(key)
    if own.get("__hash__") is None:
        made.__hash__ = _hash(key)
    made.__setattr__ = _refuse
    made.__delattr__ = _refuse
    return cast("_Class", made)


class _Init:
    """The ``__init__`` of a value class until somebody asks for it: then it is compiled, and takes this one's place.
    Most commands make values of a third of the classes that they import."""

    def __init__(self, made: Any, *, slots: bool) -> None:
        self._made = made
        self._slots = slots

    def __get__(self, instance: object, owner: type) -> Any:
        self._made.__init__ = _init_of(self._made, slots=self._slots)
        return self._made.__init__.__get__(instance, owner)


_UNGIVEN = object()


def _init_of(made: Any, *, slots: bool) -> Any:
    """The ``__init__`` of a value class. It fills the fields past ``__setattr__``, which refuses every change: a
    download makes some hundred values for each file (ADR 80)."""
    scope: dict[str, Any] = {"_UNGIVEN": _UNGIVEN}
    positional: list[str] = []
    keywords: list[str] = []
    lines = [] if slots else ["_fields = self.__dict__"]
    for item in fields(made):
        name = item.name
        parameter = name
        value = name
        if item.default_factory is not MISSING:
            scope[f"_make_{name}"] = item.default_factory
            parameter = f"{name}=_UNGIVEN"
            value = f"_make_{name}() if {name} is _UNGIVEN else {name}" if item.init else f"_make_{name}()"
        elif item.default is not MISSING:
            scope[f"_default_{name}"] = item.default
            parameter = f"{name}=_default_{name}"
            value = name if item.init else f"_default_{name}"
        elif not item.init:
            continue
        if item.init:
            (keywords if item.kw_only else positional).append(parameter)
        if slots:
            scope[f"_set_{name}"] = getattr(made, name).__set__
            lines.append(f"_set_{name}(self, {value})")
        else:
            lines.append(f"_fields[{name!r}] = {value}")
    if hasattr(made, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *keywords] if keywords else [])])
    body = "\n ".join(lines or ["pass"])
    exec(f"def __init__({parameters}):\n {body}", scope)
    made_init = scope["__init__"]
    made_init.__qualname__ = f"{made.__qualname__}.__init__"
    made_init.__annotations__ = {item.name: item.type for item in fields(made) if item.init} | {"return": None}
    return made_init


def _refuse(self: Any, name: str, value: object = None) -> None:
    raise FrozenInstanceError(f"cannot change the field {name!r} of a {type(self).__qualname__}")


_MOST_SHOWN = 3
_PLAIN = (str, int, float, PurePath, type(None))


def _repr(self: Any) -> str:
    """As of a dataclass, but of a field with many items, or with values, only how many they are, and of a value only
    its class: a report is one short line in a notebook or a debugger, however many files it has."""
    shown = ", ".join(f"{field.name}={_shown(getattr(self, field.name))}" for field in fields(self) if field.repr)
    return f"{type(self).__qualname__}({shown})"


def _shown(value: object) -> str:
    if isinstance(value, tuple | list | dict | set | frozenset):
        items = value.values() if isinstance(value, dict) else value
        if len(value) > _MOST_SHOWN or not all(isinstance(item, _PLAIN) for item in items):
            return "<1 item>" if len(value) == 1 else f"<{len(value)} items>"
    if type(value).__repr__ is _repr:
        return f"<{type(value).__qualname__}>"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _eq(key: Callable[[Any], Any]) -> Callable[[Any, object], Any]:
    def __eq__(self: Any, other: object) -> Any:  # noqa: N807
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash(key: Callable[[Any], Any]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(key(self))

    return __hash__
