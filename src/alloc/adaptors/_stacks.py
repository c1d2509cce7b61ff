"""Python stacks, taken fast and written out late."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType

    Stack = tuple[tuple[CodeType, int], ...]

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def take(depth: int) -> Stack:
    """The innermost ``depth`` frames outside of this package, innermost first.

    Holds code objects, not frames: no variable lives longer by it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    found: list[tuple[CodeType, int]] = []
    while frame is not None and len(found) < depth:
        found.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


def lines(stack: Stack) -> list[str]:
    """``file:line in function`` for each frame."""
    return [f"{code.co_filename}:{line} in {code.co_name}" for code, line in stack]


def text(stack: Stack, indent: str = "    ") -> str:
    """One line for each frame."""
    return "\n".join(indent + line for line in lines(stack)) or f"{indent}(no Python frame)"


def take_text(depth: int = 8) -> str:
    """A stack as text at once, for memory that C code reads."""
    return text(take(depth)) + "\n"
