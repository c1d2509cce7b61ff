"""Huge pages: where the kernel gives them unasked, our memory takes those it asks for."""

import sys

import pytest

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.needs_kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux has these flags"),
]

FLAGS = """
import alloc, re
from alloc import _installing, _route
def flags(address):
    "Of the mapping that has it: nh no huge pages, hg huge pages are asked for."
    inside = False
    with open('/proc/self/smaps') as file:
        for line in file:
            span = re.match('([0-9a-f]+)-([0-9a-f]+) ', line)
            if span:
                inside = int(span[1], 16) <= address < int(span[2], 16)
            elif inside and line.startswith('VmFlags:'):
                return ' '.join(sorted({'nh', 'hg'}.intersection(line.split()))) or '-'
def given(word):
    _installing._huge_pages_given = lambda: word
def small():
    # Behind the first 16 MiB, which jemalloc-sys itself keeps free of them.
    kept.append([bytearray(3000) for _ in range(8000)])
    return flags(alloc_address(kept[-1][-1])), flags(_route.figures()['chunks_base'] + (1 << 20))
def large():
    kept.append(bytearray(16 << 20))       # its middle: the pages of both ends are not huge
    return flags(alloc_address(kept[-1]) + (8 << 20))
def alloc_address(block):
    import ctypes
    return ctypes.addressof(ctypes.c_char.from_buffer(block))
kept = []
"""


@pytest.mark.parametrize(
    "word, preset, seen",
    [
        ("always", "balanced", "('nh', 'nh') hg"),
        ("always", "low_memory", "('nh', 'nh') nh"),
        ("always", "throughput", "('-', '-') -"),
        ("madvise", "balanced", "('-', '-') hg"),
        ("madvise", "throughput", "('-', '-') hg"),
        ("madvise", "low_memory", "('-', '-') -"),
        ("never", "balanced", "('-', '-') -"),
    ],
)
def test_who_gets_huge_pages(run, word, preset, seen):
    code = f"""
given({word!r})
alloc.install('hybrid', numpy=False, preset={preset!r})
print(small(), large())
"""
    assert run(FLAGS + code) == seen


def test_nothing_comes_back_where_the_system_gives_them(run):
    """What was dropped around a few blocks that live: the kernel's thread looks at the flags,
    some minutes later, and this test does not wait for it."""
    code = """
given('always')
alloc.install('full', numpy=False)
blocks = [bytearray(200) for _ in range(200_000)]
kept.append(blocks[::1000])
places = {alloc_address(block) >> 21 << 21 for block in blocks}
del blocks
print({flags(place + (1 << 20)) for place in places} <= {'nh'}, len(places) > 5)
"""
    assert run(FLAGS + code) == "True True"


def test_another_preset_changes_it(run):
    code = """
given('always')
for preset in ('throughput', 'balanced', 'throughput', 'low_memory'):
    alloc.install('hybrid', numpy=False, preset=preset)
    print(*small())
"""
    assert run(FLAGS + code).splitlines() == ["- -", "nh nh", "hg hg", "nh nh"]


def test_jemallocs_own_option_is_the_deployers(run):
    code = """
given('always')
alloc.install('hybrid', numpy=False)
print(*small())
"""
    assert run(FLAGS + code, env={"JE_MALLOC_CONF": "thp:always"}) in ("- -", "hg -")


def test_the_kernels_word_is_read(run):
    code = """
with open('/sys/kernel/mm/transparent_hugepage/enabled') as file:
    text = file.read()
print(f'[{_installing._huge_pages_given()}]' in text)
"""
    assert run(FLAGS + code) == "True"
