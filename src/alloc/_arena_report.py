"""What an arena's heap looks like: statistics, a map as text, all invariants.

Everything here walks the whole heap and is imported when first asked for.
"""

from __future__ import annotations

from ._arena_heap import Heap
from ._arena_index import GRAIN, bin_of
from ._arena_lease import QUICK_MAX
from ._arena_memory import MASK, PAGE, SHIFT, Chunk
from ._ledger import HeapStatistics
from .layout import EMPTY_ADDRESS

# Bytes of records per item on CPython 3.11, as sys.getsizeof adds up: a span that
# is out has its lease, its entry and two ints; a free one three entries and ints.
PER_OUT, PER_FREE, PER_CHUNK = 240, 320, 480


def cached(heap: Heap) -> dict[int, int]:
    """Position to span of all that waits in the caches."""
    found = {lease.pos: lease.span for quick in heap.quick for lease in list(quick)}
    found.update({lease.pos: lease.span for leases in heap.big.values() for lease in leases})
    return found


def statistics(heap: Heap) -> HeapStatistics:
    """See `Arena.statistics`."""
    heap.settle()
    with heap.lock:
        waiting = cached(heap)
        waiting.update({lease.pos: lease.span for lease in heap.pending if lease.chunk})
        out = dict(heap.out)
        chunks = list(heap.chunks.values())
        free = dict(heap.index.free)
        spare = heap.spare
    mapped = sum([chunk.size for chunk in chunks])
    metadata = PER_OUT * len(out) + PER_FREE * len(free) + PER_CHUNK * len(chunks)
    idle = sum([(p + s) // PAGE * PAGE - -(-p // PAGE) * PAGE for p, s in free.items() if s > PAGE])
    touched = sum([-(-chunk.fresh // PAGE) * PAGE for chunk in chunks])
    return HeapStatistics(
        heap.name,
        allocated=sum(out.values()) - sum(waiting.values()),
        active=mapped - idle - (spare.size if spare is not None else 0),
        resident=touched + metadata,
        mapped=mapped,
        retained=0,
        metadata=metadata,
        blocks=len(out) - len(waiting),
    )


def whereabouts(heap: Heap, address: int) -> tuple[str, int, int]:
    """What an address of the heap lies in: kind, start address, size.

    Kinds: ``free``; ``raw``, a live block of malloc; ``block``, of a Block.
    """
    with heap.lock:
        for start, lease in list(heap.live.items()):
            if start <= address < start + lease.span:
                return "raw", start, lease.size
        waiting = cached(heap)
        for pos, span in list(heap.out.items()):
            chunk = heap.chunks[pos >> SHIFT]
            start = chunk.locate() + pos
            if start <= address < start + span and pos not in waiting:
                return "block", start, span
    return "free", address, 0


def visualize(heap: Heap, width: int) -> str:
    """See `Arena.visualize`."""
    if width < 1:
        raise ValueError(f"width must be positive, got {width}")
    heap.settle()
    with heap.lock:
        waiting = cached(heap)
        rows: dict[int, list[tuple[int, int]]] = {number: [] for number in heap.chunks}
        blocks = dict.fromkeys(heap.chunks, 0)
        for pos, span in heap.out.items():
            if pos not in waiting:
                rows[pos >> SHIFT].append((pos & MASK, span))
                blocks[pos >> SHIFT] += 1
        chunks = list(heap.chunks.values())
    lines = [f"arena: {len(chunks)} chunks, {sum([c.size for c in chunks]):,} bytes mapped"]
    for chunk in chunks:
        used = sum([span for _, span in rows[chunk.index]])
        where = f"at {chunk.bias + chunk.origin:#x}, " if chunk.bias is not None else ""
        what = "one large block, " if chunk.solo else ""
        if chunk is heap.spare:
            what = "kept for the next large block, "
        lines.append(
            f"chunk {chunk.index}: {where}{what}{chunk.size:,} bytes, "
            f"{blocks[chunk.index]} blocks, {100 * used // chunk.size} % in use"
        )
        lines.append("  |" + _cells(chunk, rows[chunk.index], width) + "|")
    lines.append("  '#' full  '+' partly in use  '.' free  ' ' never used")
    return "\n".join(lines)


def _cells(chunk: Chunk, spans: list[tuple[int, int]], width: int) -> str:
    edges = [chunk.size * i // width for i in range(width + 1)]
    used = [0] * width
    for start, span in spans:
        cell = min(width - 1, start * width // chunk.size)
        while cell and edges[cell] > start:
            cell -= 1
        while cell < width and edges[cell] < start + span:
            used[cell] += max(0, min(edges[cell + 1], start + span) - max(edges[cell], start))
            cell += 1
    text = ""
    for i in range(width):
        size = edges[i + 1] - edges[i]
        if used[i]:
            text += "#" if used[i] == size else "+"
        else:
            text += "." if edges[i] < chunk.fresh else " "
    return text


# --- invariants ------------------------------------------------------------------------


def _demand(truth: object, what: str) -> None:
    if not truth:
        raise AssertionError(f"arena: {what}")


def verify(heap: Heap) -> None:
    """See `Arena.check`."""
    heap.settle()
    with heap.lock:
        _demand(not heap.busy, "check() was called in the middle of an operation")
        heap.busy = True
        try:
            _index(heap)
            _tiles(heap)
            _quick(heap)
            _raw(heap)
            _limits(heap)
        finally:
            heap.busy = False


def _index(heap: Heap) -> None:
    index = heap.index
    binned = 0
    for number, row in enumerate(index.bins):
        bit = index.sub[number >> 5] >> (number & 31) & 1
        _demand(bool(row) == bool(bit), f"the bit of bin {number} is {bit}, it holds {len(row)}")
        for pos, size in row.items():
            _demand(bin_of(size) == number, f"a free span of {size} bytes is in bin {number}")
            _demand(index.free.get(pos) == size, f"bin {number} holds {pos:#x}, which is not free")
        binned += len(row)
    for level, bits in enumerate(index.sub):
        bit = index.top >> level & 1
        _demand(bool(bits) == bool(bit), f"the bit of level {level} is {bit}, its bins {bits:#x}")
    _demand(binned == len(index.free), f"{len(index.free)} free spans, {binned} in bins")
    idle = sum(index.free.values())
    _demand(idle == index.idle, f"idle is {index.idle}, the free spans have {idle} bytes")
    ends = {pos + size: pos for pos, size in index.free.items()}
    _demand(ends == index.ends, "the ends of the free spans are not their ends")
    for pos in index.free:
        _demand(pos not in ends, f"free spans touch at {pos:#x}")


def _tiles(heap: Heap) -> None:
    """Spans that are out and free ones fill every chunk without gap or overlap."""
    rows: dict[int, list[tuple[int, int, bool]]] = {number: [] for number in heap.chunks}
    for spans, is_free in ((heap.out, False), (heap.index.free, True)):
        for pos, size in spans.items():
            _demand(pos >> SHIFT in rows, f"{pos:#x} is in no chunk")
            rows[pos >> SHIFT].append((pos & MASK, size, is_free))
    for number, chunk in heap.chunks.items():
        row = sorted(rows[number])
        _demand(chunk.index == number and chunk.origin == number << SHIFT, f"chunk {number}: name")
        for start, size, is_free in row:
            end = start + size
            whole = f"chunk {number}: the span {start}..{end}"
            _demand(
                (size > 0 and (start | size) % GRAIN == 0) or chunk.solo, f"{whole} is not whole"
            )
            _demand(end <= chunk.size, f"{whole} leaves the chunk of {chunk.size} bytes")
            _demand(is_free or end <= chunk.fresh, f"{whole} is out and said to be never used")
        if chunk.solo:
            _demand(not any(is_free for _, _, is_free in row), f"chunk {number}: indexed, but solo")
            expected = 0 if chunk is heap.spare else 1
            _demand(len(row) == expected, f"chunk {number}: {len(row)} blocks in a large mapping")
            continue
        at = 0
        for start, size, _ in row:
            kind = "overlap" if start < at else "gap"
            _demand(start == at, f"chunk {number}: {kind} at {min(start, at)}..{max(start, at)}")
            at = start + size
        _demand(at == chunk.size, f"chunk {number}: gap at {at}..{chunk.size}")
        is_empty = len(row) == 1 and row[0][2]
        _demand(
            is_empty == (heap.empty == number),
            f"chunk {number}: {'free' if is_empty else 'in use'}, but the kept one is {heap.empty}",
        )


def _quick(heap: Heap) -> None:
    seen = set()
    lists = [(units * GRAIN, quick, quick) for units, quick in enumerate(heap.quick)]
    for span, quick, home in lists + [(span, big, None) for span, big in heap.big.items()]:
        for lease in quick:
            what = f"the span at {lease.pos:#x} in the cache of {span} bytes"
            _demand(lease.span == span, f"{what} has {lease.span} bytes")
            _demand(lease.quick is home, f"{what} has another home")
            _demand(not lease.held and lease.root is None, f"{what} is live")
            _demand(heap.out.get(lease.pos) == lease.span, f"{what} is not out of the index")
            _demand(lease.pos not in seen, f"{what} is there twice")
            seen.add(lease.pos)


def _raw(heap: Heap) -> None:
    waiting = cached(heap)
    for address, lease in heap.live.items():
        what = f"the block at {address:#x}"
        _demand(lease.chunk is not None and lease.chunk.bias is not None, f"{what} has no chunk")
        assert lease.chunk is not None and lease.chunk.bias is not None
        _demand(lease.chunk.bias + lease.pos == address, f"{what} is elsewhere")
        _demand(address != EMPTY_ADDRESS and address % lease.align == 0, f"{what} is misaligned")
        _demand(heap.out.get(lease.pos) == lease.span, f"{what} is free in the index")
        _demand(lease.pos not in waiting, f"{what} is in a quick list")
        _demand(0 < lease.size <= lease.span, f"{what} has {lease.size} bytes in {lease.span}")


def _limits(heap: Heap) -> None:
    mapped = heap.mapped()
    _demand(
        heap.capacity is None or mapped <= heap.capacity, f"{mapped} bytes mapped over the capacity"
    )
    shared = sum([chunk.size for chunk in heap.chunks.values() if not chunk.solo])
    _demand(shared == heap.shared, f"shared is {heap.shared}, the chunks have {shared} bytes")
    _demand(len(heap.quick) == (QUICK_MAX >> 4) + 1, "the quick lists are not as many as classes")
    ranges = heap.ranges
    if ranges is not None:
        _demand(len(ranges) == len(heap.chunks), "the address ranges are not those of the chunks")
