"""The arena where no extension module loads, as in a host that hides libpython."""

import pytest

HIDE = """
import sys
for name in ("_pickle", "_ctypes", "mmap", "_contextvars"):
    sys.modules[name] = None
import alloc
assert alloc.implementation == "python"
with alloc.allocate(100, zeroed=True) as block:
    assert bytes(block.view) == bytes(100)
block = alloc.allocate(100)
view = block.view
part = memoryview(view)[2:5]
view.release()
for held in (True, False):
    try:
        block.free()
    except BufferError:
        assert held
        part.release()
    else:
        assert not held
with alloc.using(alloc.Arena()) as arena:
    assert alloc.allocate(5).allocator is arena
assert alloc.allocate(5).allocator is not arena
print(alloc.verify().ok)
"""


@pytest.mark.needs_cpython
def test_blocks_views_and_scopes_work(python):
    assert python(HIDE, env={"ALLOC_IMPLEMENTATION": "python"}) == "True"
