"""Frozen records without ``dataclasses``.

``dataclasses`` imports ``inspect`` and costs more than the whole of ``import
alloc`` may (3 ms).  Type checkers are shown the real thing; see the users' own
``if TYPE_CHECKING``.  A record is ``@record(frozen=True) class X(Record)`` with
annotated fields, of which the last ones may have defaults.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from typing import TypeVar

    T = TypeVar("T")

    class Record:
        """Stands in for the run-time base."""

else:

    def record(*, frozen):
        """Nothing to do at run time: the base class does it."""
        return lambda cls: cls

    class Record:
        """Base of all records: fields from the annotations, compared by value."""

        # Methods come by inheritance: each one set on a class afterwards would
        # make the interpreter update the type's slots, which took most of the
        # time of this import.
        __match_args__ = ()

        def __init_subclass__(cls):
            cls.__match_args__ = tuple(cls.__annotations__)

        def __init__(self, *args, **values):
            cls = type(self)
            names = cls.__match_args__
            if len(args) > len(names):
                raise TypeError(f"{cls.__name__} takes {len(names)} values, got {len(args)}")
            for name, value in zip(names, args):
                if name in values:
                    raise TypeError(f"{cls.__name__}: two values for {name}")
                values[name] = value
            fields = self.__dict__
            missing = []
            for name in names:
                if name in values:
                    fields[name] = values.pop(name)
                elif name in cls.__dict__:
                    fields[name] = cls.__dict__[name]
                else:
                    missing.append(name)
            if missing or values:
                raise TypeError(f"{cls.__name__}: missing {missing}, unknown {sorted(values)}")

        def __setattr__(self, name, value):
            raise AttributeError(f"a {type(self).__name__} cannot be changed: {name}")

        def __delattr__(self, name):
            raise AttributeError(f"a {type(self).__name__} cannot be changed: {name}")

        def __eq__(self, other):
            if type(other) is not type(self):
                return NotImplemented
            return self.__dict__ == other.__dict__

        def __hash__(self):
            return hash(tuple(self.__dict__.values()))

        def __repr__(self):
            body = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
            return f"{type(self).__name__}({body})"


def as_dict(value: object) -> dict[str, object]:
    """The fields of a record, in order."""
    return dict(value.__dict__)


def replace(value: T, **changes: object) -> T:
    """A copy of a record with some fields changed."""
    return type(value)(**{**as_dict(value), **changes})
