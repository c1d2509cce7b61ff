"""Frozen records without ``dataclasses``.

``dataclasses`` imports ``inspect`` and costs more than the whole of ``import
alloc`` may (3 ms).  Type checkers are shown the real thing; see the users' own
``if TYPE_CHECKING``.  Supported: annotations, defaults, ``frozen=True``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen):
        """Make a class with annotated fields a frozen record."""
        assert frozen is True

        def decorate(cls):
            names = tuple(cls.__annotations__)
            defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
            required = [name for name in names if name not in defaults]

            def __init__(self, *args, **values):
                if len(args) > len(names):
                    raise TypeError(f"{cls.__name__} takes {len(names)} values, got {len(args)}")
                for name, value in zip(names, args):
                    if name in values:
                        raise TypeError(f"{cls.__name__}: two values for {name}")
                    values[name] = value
                missing = [name for name in required if name not in values]
                unknown = [name for name in values if name not in names]
                if missing or unknown:
                    raise TypeError(f"{cls.__name__}: missing {missing}, unknown {unknown}")
                self.__dict__.update(defaults, **values)

            def __setattr__(self, name, value):
                raise AttributeError(f"a {cls.__name__} cannot be changed: {name}")

            def __delattr__(self, name):
                raise AttributeError(f"a {cls.__name__} cannot be changed: {name}")

            def __eq__(self, other):
                if other.__class__ is not self.__class__:
                    return NotImplemented
                return self.__dict__ == other.__dict__

            def __hash__(self):
                return hash(tuple(getattr(self, name) for name in names))

            def __repr__(self):
                body = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
                return f"{cls.__name__}({body})"

            methods = (__init__, __setattr__, __delattr__, __eq__, __hash__, __repr__)
            for method in methods:
                method.__qualname__ = f"{cls.__qualname__}.{method.__name__}"
                setattr(cls, method.__name__, method)
            cls.__match_args__ = names
            cls.__record_fields__ = names
            return cls

        return decorate


def as_dict(value: object) -> dict[str, object]:
    """The fields of a record, in order."""
    return {name: getattr(value, name) for name in type(value).__record_fields__}  # type: ignore[attr-defined]


def replace(value, **changes):  # type: ignore[no-untyped-def]
    """A copy of a record with some fields changed."""
    return type(value)(**{**as_dict(value), **changes})
