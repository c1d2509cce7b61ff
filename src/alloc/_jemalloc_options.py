"""jemalloc's options: which are in force, who set them, and whether they took effect."""

from __future__ import annotations

from alloc._jemalloc_keys import CONF_ONLY, KEYS, near
from alloc._record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as record
    from typing import Any
else:
    from ._record import record


class OptionError(ValueError):
    """An option that jemalloc does not know, or refuses; the text lists near names."""


@record(frozen=True)
class Option(Record):
    """One option of jemalloc as it is in force."""

    name: str
    """Its name in ``JE_MALLOC_CONF``."""
    value: bool | int | str | None
    """As jemalloc reads it back at start; ``None``: it cannot be asked for.
    jemalloc: ``opt.<name>``."""
    origin: str
    """``default``, ``build`` (``config.malloc_conf``), ``program`` (``malloc_conf``, written
    before loading), ``file`` (``/etc/je_malloc.conf``) or ``environment``."""
    requested: str | None = None
    """What was asked for there."""
    now: bool | int | None = None
    """The value now, where it was changed since, by `configure()` or a preset."""
    rejected: bool = False
    """Whether jemalloc took another value than was asked for."""


SOURCES = (
    ("build", "config.malloc_conf"),
    ("program", "opt.malloc_conf.global_var"),
    ("file", "opt.malloc_conf.symlink"),
    ("environment", "opt.malloc_conf.env_var"),
    ("program", "opt.malloc_conf.global_var_2_conf_harder"),
)
"""In jemalloc's order: the last wins."""

NAMES = {
    name[4:]: key for name, key in KEYS.items() if name.startswith("opt.") and name.count(".") == 1
}
"""Options that can be asked for."""

CHANGEABLE = ("dirty_decay_ms", "muzzy_decay_ms", "background_thread", "max_background_threads",
              "oversize_threshold", "prof_active")  # fmt: skip
"""Options that can be changed while the program runs."""


def split(text: str) -> list[tuple[str, str]]:
    """Pairs of an options string.  ``OptionError`` for what is no pair."""
    pairs: list[tuple[str, str]] = []
    for part in text.split(","):
        name, colon, value = part.strip().partition(":")
        if not part.strip():
            continue
        if not colon or not name or not value:
            raise OptionError(f"{part!r} is no option: write name:value,name:value")
        pairs.append((name, value))
    return pairs


def check(name: str, value: object) -> bool | int | str:
    """The value, by the option's type.  ``OptionError`` if it cannot be."""
    if name not in NAMES and name not in CONF_ONLY:
        raise OptionError(f"jemalloc has no option {name!r}{near(name, [*NAMES, *CONF_ONLY])}")
    kind = NAMES[name].kind if name in NAMES else "str"
    if kind == "bool":
        for truth in (True, False):
            if value is truth or value == str(truth).lower():
                return truth
        raise OptionError(f"{name} is true or false, not {value!r}")
    if kind == "str":
        return str(value)
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise OptionError(f"{name} is a number, not {value!r}") from None
    low, high = {"u32": (0, 2**32 - 1), "u64": (0, 2**64 - 1), "i64": (-1, 2**63 - 1)}[kind]
    if not low <= number <= high:
        raise OptionError(f"{name} lies between {low} and {high}, not at {number}")
    return int(number)


def validate(text: str) -> dict[str, bool | int | str]:
    """The options of a string as jemalloc would be given it, e.g. ``JE_MALLOC_CONF``.

    Raises ``OptionError`` for the first that is not known or cannot be; jemalloc itself
    prints a line and goes on.
    """
    return {name: check(name, value) for name, value in split(text)}


def options(read: Callable[[str], Any]) -> dict[str, Option]:
    """Each option by its name; ``read`` gives a key's value or raises ``KeyError``."""
    asked: dict[str, tuple[str, str | None]] = {}
    for origin, key in SOURCES:
        try:
            text = read(key)
        except KeyError:  # an older jemalloc
            continue
        for name, given in _lenient(text or ""):
            asked[name] = (origin, given)
    found = {}
    for name in [*NAMES, *(n for n in asked if n not in NAMES)]:
        try:
            value = read(f"opt.{name}") if name in NAMES else None
        except (KeyError, OSError):
            continue  # a build without it
        origin, requested = asked.get(name, ("default", None))
        found[name] = Option(
            name,
            value,
            origin,
            requested,
            _now(read, name, value),
            _rejected(name, requested, value),
        )
    return found


def _lenient(text: str) -> list[tuple[str, str]]:
    """As `split`, by jemalloc's own rule: what is no pair is passed over."""
    pairs = [part.strip().partition(":") for part in text.split(",")]
    return [(name, value) for name, colon, value in pairs if colon]


def _rejected(name: str, requested: str | None, value: object) -> bool:
    if requested is None or name in CONF_ONLY:
        return False
    if name not in NAMES:
        return True
    try:
        return check(name, requested) != value
    except OptionError:
        return True


def _now(read: Callable[[str], Any], name: str, value: object) -> bool | int | None:
    key = {
        "dirty_decay_ms": "arenas.dirty_decay_ms",
        "muzzy_decay_ms": "arenas.muzzy_decay_ms",
        "background_thread": "background_thread",
        "max_background_threads": "max_background_threads",
        "prof_active": "prof.active",
    }.get(name)
    if key is None:
        return None
    try:
        now: bool | int = read(key)
    except (KeyError, OSError):
        return None
    return None if now == value else now
