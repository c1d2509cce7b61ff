"""Allocators named on a command line: ``jemalloc``, ``Aligned(Jemalloc(), 64)``."""

import ast

import alloc
from alloc import adaptors

BACKENDS = ("System", "Jemalloc", "Arena", "Bump", "Pool")
SHORT = {name.lower(): name for name in BACKENDS}


def names():
    """What may be called, sorted."""
    return sorted([*BACKENDS, *(name for name in adaptors.__all__ if name[0].isupper())])


def make(text):
    """The allocator that ``text`` describes: calls, names and literals, nothing else.

    Raises ``ValueError`` for anything else.
    """
    text = text.strip()
    if text in SHORT:
        text = f"{SHORT[text]}()"
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no allocator: {error.msg}") from None
    return _value(tree, text)


def _value(node, text):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        return _value(node.left, text) << _value(node.right, text)
    if isinstance(node, ast.Dict):
        return {_value(k, text): _value(v, text) for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name in names():
            maker = getattr(alloc if name in BACKENDS else adaptors, name)
            arguments = [_value(one, text) for one in node.args]
            named = {one.arg: _value(one.value, text) for one in node.keywords if one.arg}
            return maker(*arguments, **named)
        raise ValueError(f"{text!r}: no allocator {name!r}; there are {', '.join(names())}")
    raise ValueError(f"{text!r} is no allocator: write jemalloc, or Aligned(Jemalloc(), 64)")
