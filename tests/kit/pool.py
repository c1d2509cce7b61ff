"""A small correct allocator in pure Python, for `broken` to break.

Power-of-two classes in one mapping, each class with a list of free places.  It
keeps all of the contract, so what the kit finds in a broken one is the fault.
"""

import ctypes
import mmap
import sys
import threading
import weakref

import alloc
from alloc import EMPTY_ADDRESS, AllocError, HeapStatistics, Layout
from alloc.layout import array_size, check

ROOM = 256 << 20 if sys.maxsize > 1 << 32 else 64 << 20


class Pool:
    name = "pool"
    capabilities = frozenset({"owns", "checked"})

    def __init__(self):
        self.memory = mmap.mmap(-1, ROOM)
        self.anchor = ctypes.c_char.from_buffer(self.memory)
        self.base = ctypes.addressof(self.anchor)
        self.end = self.base + ROOM
        self.top = -(-self.base // 65536) * 65536
        self.free_places = {}  # class -> addresses
        self.live = {}  # address -> (size, align, class)
        self.last_freed = set()
        self.lock = threading.RLock()

    # --- the machine room: what subclasses break ---------------------------------

    def round(self, size, align):
        return max(16, 1 << (max(size, align) - 1).bit_length())

    def locked(self):
        return self.lock

    def grant(self, size, align, zeroed=False):
        if size == 0:
            return EMPTY_ADDRESS
        room = self.round(size, align)
        with self.locked():
            address = self.place(room, align)
            if address is None:
                self.refuse(size, align)
            self.live[address] = size, align, room
            self.last_freed.discard(address)
        if zeroed:
            self.clear(address, size)
        return address

    def place(self, room, align):
        places = self.free_places.get(room)
        if places:
            return places.pop()
        step = min(room, 65536)
        address = -(-self.top // step) * step
        if address + room > self.end:
            return None
        self.top = address + room
        return address

    def refuse(self, size, align):
        raise AllocError(Layout(size, align), self.name)

    def clear(self, address, size):
        ctypes.memset(address, 0, size)

    def release(self, address):
        with self.locked():
            room = self.live.pop(address)[2]
            self.last_freed.add(address)
            self.put_back(room, address)

    def put_back(self, room, address):
        self.free_places.setdefault(room, []).append(address)

    def copy(self, target, source, size):
        ctypes.memmove(target, source, size)

    def regrow(self, address, new_size):
        """In place if the class has room."""
        _, align, room = self.live[address]
        if new_size == 0 or new_size > room:
            return False
        self.live[address] = new_size, align, room
        return True

    def move(self, address, new_size, new_align=None):
        size, align, _ = self.live[address]
        if new_size == 0:
            self.release(address)
            return EMPTY_ADDRESS
        moved = self.grant(new_size, new_align or align)
        self.copy(moved, address, min(size, new_size))
        self.release(address)
        return moved

    def usable(self, address):
        return self.live[address][2]

    def find(self, address, size=None, align=None):
        """The live block at an address, or the error that names the crime."""
        if address not in self.live:
            if address in self.last_freed:
                raise alloc.DoubleFreeError(f"{address:#x} was freed already")
            raise alloc.InvalidFreeError(f"{address:#x} is not a block")
        if size is not None and self.live[address][:2] != (size, align):
            raise alloc.SizeMismatchError(f"{address:#x} was granted as {self.live[address][:2]}")

    # --- the Protocol ----------------------------------------------------------------

    def allocate(self, size, align=16, zeroed=False):
        size, align = check(size, align)
        return PoolBlock(self, self.grant(size, align, zeroed), size, align)

    def malloc(self, size):
        return self.grant(*check(size))

    def calloc(self, count, itemsize=1):
        return self.grant(*check(array_size(count, itemsize)), True)

    def aligned_alloc(self, align, size):
        return self.grant(*check(size, align))

    def realloc(self, address, size):
        size, _ = check(size)
        if address in (0, EMPTY_ADDRESS):
            return self.grant(size, 16)
        self.find(address)
        return self.move(address, size, 16)

    def resize(self, address, size, new_size, align=16):
        check(size, align)
        new_size, _ = check(new_size, align)
        if size == 0 or new_size == 0:
            return size == new_size
        self.find(address, size, align)
        return self.regrow(address, new_size)

    def free(self, address):
        if address not in (0, EMPTY_ADDRESS):
            self.find(address)
            self.release(address)

    def free_sized(self, address, size, align=16):
        check(size, align)
        if address not in (0, EMPTY_ADDRESS):
            self.find(address, size, align)
            self.release(address)

    def usable_size(self, address):
        if address in (0, EMPTY_ADDRESS):
            return 0
        self.find(address)
        return self.usable(address)

    def owns(self, address):
        return self.base <= address < self.end

    def statistics(self):
        with self.lock:
            allocated = sum(room for _, _, room in self.live.values())
            return HeapStatistics(self.name, allocated=allocated, blocks=len(self.live))


class PoolBlock:
    def __init__(self, allocator, address, size, align):
        self._allocator, self._at, self._size, self._align = allocator, address, size, align
        self._exports = []

    def _live(self):
        if self._at is None:
            raise alloc.UseAfterFreeError("the block was freed")
        return self

    def _unexported(self):
        if any(array() is not None for array in self._exports):
            raise BufferError("the block has exported buffers")

    address = property(lambda self: self._live()._at)
    size = property(lambda self: self._live()._size)
    align = property(lambda self: self._live()._align)
    layout = property(lambda self: Layout(self.size, self.align))
    allocator = property(lambda self: self._allocator)
    freed = property(lambda self: self._at is None)

    @property
    def usable_size(self):
        return 0 if self.size == 0 else self._allocator.usable(self._at)

    @property
    def view(self):
        # A new array for each view: it lives exactly as long as its views.
        if self.size == 0:
            array = (ctypes.c_ubyte * 0)()
        else:
            array = (ctypes.c_ubyte * self.size).from_address(self._at)
        self._exports = [weakref.ref(array), *(e for e in self._exports if e() is not None)]
        return memoryview(array).cast("B")

    def resize(self, size, *, move=True):
        size, _ = check(size, self._live()._align)
        self._unexported()
        if size == self._size:
            return True
        if self._size and self._allocator.regrow(self._at, size):
            self._size = size
            return True
        if not move:
            return False
        if self._size:
            self._at = self._allocator.move(self._at, size)
        else:
            self._at = self._allocator.grant(size, self._align)
        self._size = size
        return True

    def free(self):
        if self._at is None:
            raise alloc.DoubleFreeError("the block was freed already")
        self._unexported()
        at, self._at = self._at, None
        if at != EMPTY_ADDRESS:
            self._allocator.release(at)

    def __del__(self):
        if self._at not in (None, EMPTY_ADDRESS):
            self._allocator.release(self._at)

    def __len__(self):
        return self.size

    def __enter__(self):
        return self._live()

    def __exit__(self, kind, value, traceback):
        if self._at is not None:
            self.free()
