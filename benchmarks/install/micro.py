"""Fixed pieces of work, to be counted in instructions: python micro.py MODE WORK N."""

import sys


def json_loads(n):
    import json

    text = json.dumps(
        [{"id": i, "name": f"name {i}", "tags": ["a", "b", str(i)]} for i in range(200)]
    )
    for _ in range(n):
        json.loads(text)


def objects(n):
    class Point:
        def __init__(self, x, y):
            self.x = x
            self.y = y

    for _ in range(n):
        held = [Point(i, i + 1) for i in range(2000)]
        del held


def tuples(n):
    for _ in range(n):
        held = [(i, i, i) for i in range(20_000)]
        del held


def strings(n):
    text = " ".join(str(i) for i in range(3000))
    for _ in range(n):
        "-".join(text.split())


def tree(n):
    def grow(depth):
        return {k: grow(depth - 1) for k in range(3)} if depth else {}

    for _ in range(n):
        grow(6)


def buffers(n):
    for _ in range(n):
        held = [bytes(600 + i * 7 % 3300) for i in range(1000)]
        del held


ROUNDS = {json_loads: 60, objects: 25, tuples: 12, strings: 40, tree: 25, buffers: 60}

if __name__ == "__main__":
    mode, name, part = sys.argv[1], sys.argv[2], float(sys.argv[3])
    if mode != "stock":
        import alloc

        done = alloc.install(mode, numpy=False)
        assert done.python == mode, done
    work = globals()[name]
    work(max(1, int(ROUNDS[work] * part)))
