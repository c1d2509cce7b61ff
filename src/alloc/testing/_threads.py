"""The thread check: allocate, fill, verify and free from several threads at once."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time

from alloc import Layout

from . import _memory
from ._raw import RawSubject
from ._subject import require
from .capabilities import Capabilities
from .errors import ConformanceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alloc.protocols import Allocator

    from ._subject import Held

JITTER = 0.02
"""How often a thread steps aside at a call, which brings races of Python code to light."""

ASIDE = 1e-6
"""Seconds that it does so.  Not 0: the kernel then returns before another thread has run."""

SIZES = (1, 16, 24, 64, 64, 64, 100, 256, 1024, 4096)


class Register:
    """All places that any thread holds.  Two owners of one place is an overlap."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.places: dict[int, int] = {}

    def add(self, held: Held) -> None:
        if not held.size or not held.address:
            return
        with self.lock:
            if held.address in self.places:
                raise ConformanceError("threads", f"two threads were granted {held.address:#x}")
            self.places[held.address] = held.size

    def remove(self, held: Held) -> None:
        with self.lock:
            self.places.pop(held.address, None)

    def apart(self) -> None:
        with self.lock:
            ordered = sorted(self.places.items())
        for (a, size), (b, _) in zip(ordered, ordered[1:]):
            if a + size > b:
                raise ConformanceError("threads", f"blocks of two threads overlap at {b:#x}")


class Worker(RawSubject):
    """A model of its own for each thread; statistics belong to all together."""

    def __init__(
        self, allocator: Allocator, capabilities: Capabilities, register: Register
    ) -> None:
        super().__init__(allocator, capabilities)
        self.baseline = None
        self.register = register

    def verify(self, held: Held, when: str) -> None:
        self.compare(held, _memory.pattern(held.seed, held.size), "threads", when)

    def work(self, number: int, deadline: float) -> None:
        self.seed = number * 1_000_000
        dice = random.Random(number)
        rounds = 0
        while rounds < 40 or time.monotonic() < deadline:
            rounds += 1
            for _ in range(8):
                held = self.grant(dice)
                if held is not None:
                    self.register.add(held)
            if rounds % 8 == 0:
                self.register.apart()
            dice.shuffle(self.held)
            for held in self.held[:]:
                if dice.random() < 0.6:
                    self.register.remove(held)
                    self.discard(held)
        for held in self.held[:]:
            self.register.remove(held)
            self.discard(held)

    def grant(self, dice: random.Random) -> Held | None:
        size = dice.choice(SIZES)
        if self.capabilities.raw and dice.random() < 0.5:
            return self.malloc(size)
        return self.allocate(size, zeroed=dice.random() < 0.2)


def check_threads(
    allocator: Allocator, capabilities: Capabilities, *, workers: int = 4, seconds: float = 0.25
) -> None:
    """Raise `ConformanceError` if threads disturb each other."""
    subject = RawSubject(allocator, capabilities)
    register = Register()
    errors: list[BaseException] = []

    def run(number: int) -> None:
        worker = None
        dice = random.Random(number)

        def step_aside(frame: object, event: str, argument: object) -> None:
            if event == "call" and dice.random() < JITTER:
                time.sleep(ASIDE)

        if sys.getprofile() is None:
            sys.setprofile(step_aside)
        try:
            worker = Worker(allocator, capabilities, register)
            worker.work(number + 1, time.monotonic() + seconds)
        except BaseException as error:
            errors.append(error)
            with contextlib.suppress(Exception):  # what is broken may stay so
                if worker is not None:
                    worker.abandon()
        finally:
            if sys.getprofile() is step_aside:
                sys.setprofile(None)

    interval = sys.getswitchinterval()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(workers)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for error in errors:
        if isinstance(error, ConformanceError) and error.rule != "unexpected error":
            raise error
    if errors:
        raise ConformanceError("threads", f"a thread failed: {errors[0]!r}") from errors[0]
    subject.count()
    held = subject.allocate(64)
    require(held is not None or capabilities.bounded, "threads", f"{Layout(64)} refused afterwards")
    subject.finish()
