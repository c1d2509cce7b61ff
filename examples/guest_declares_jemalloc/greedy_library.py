"""A library that does what only applications may do."""

import alloc


def start() -> None:
    """Declare an allocator for a process that is not the library's."""
    alloc.set_global_allocator(alloc.System())
