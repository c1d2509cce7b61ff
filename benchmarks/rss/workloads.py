"""Six small workloads.  Each works, drops what it held, and returns what stays alive.

Fixed work: seeds are set, amounts do not depend on time.  The names are those of
the table.
"""

from __future__ import annotations

import io
import json
import random
import threading

THREADS = 8


def in_threads(work) -> None:
    """``work(index)`` in eight threads at once, to their end."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def documents():
    """Eight threads parse and write a JSON document of 2 MB each, four times."""
    record = [
        {"id": i, "name": f"customer {i}", "tags": [f"t{i % 97}", f"g{i % 31}"], "score": i / 7}
        for i in range(22_000)
    ]
    text = json.dumps(record)
    del record

    together = threading.Barrier(THREADS)  # else a peak depends on who gets the GIL

    def work(index):
        for _ in range(4):
            parsed = json.loads(text)
            together.wait()
            json.dumps(parsed[:: index + 2])
            del parsed
            together.wait()

    in_threads(work)


def trees():
    """Dicts and tuples of 50 MB, of which one in a thousand survives, three times."""
    survivors = []
    for turn in range(3):
        nodes = []
        for i in range(120_000):
            nodes.append({"key": f"{turn}-{i}", "pair": (i, i + 0.5)})
        survivors += nodes[::1000]
        del nodes
    return survivors


def fragments():
    """Eight threads make buffers of 600 B to 60 KB and keep few of them, as caches do."""
    kept = [[] for _ in range(THREADS)]
    together = threading.Barrier(THREADS)

    def work(index):
        chance = random.Random(index)
        for _ in range(6):
            live = [b"x" * int(600 * 100 ** chance.random()) for _ in range(1500)]
            together.wait()
            kept[index] += [block for block in live[::60] if len(block) < 4000]
            chance.shuffle(live)
            while live:
                live.pop()
            together.wait()

    in_threads(work)
    return kept


def requests():
    """A WSGI application: eight threads that stay serve 40 requests of up to 2 MB each."""
    from concurrent.futures import ThreadPoolExecutor
    from zlib import compress

    sessions = {}

    def application(environ, start_response):
        rows = json.loads(environ["wsgi.input"].read())
        sessions[environ["PATH_INFO"]] = {"rows": len(rows), "last": rows[-1]["name"] * 30}
        page = "".join(f"<tr><td>{r['id']}<td>{r['name']}<td>{r['note']}\n" for r in rows)
        start_response("200 OK", [("Content-Type", "text/html")])
        return [compress(page.encode(), 1)]

    def serve(number):
        chance = random.Random(number)
        rows = [
            {"id": i, "name": f"name {i}", "note": "x" * chance.randrange(200)}
            for i in range(int(300 * 30 ** chance.random()))
        ]
        body = json.dumps(rows).encode()
        del rows
        environ = {"PATH_INFO": f"/{number}", "wsgi.input": io.BytesIO(body)}
        return sum(map(len, application(environ, lambda status, headers: None)))

    pool = ThreadPoolExecutor(THREADS)
    for _ in pool.map(serve, range(THREADS * 40)):
        pass
    return pool, sessions


def frames():
    """pandas: joins, groups and pivots of a million rows; a table of groups stays."""
    import numpy
    import pandas

    chance = numpy.random.default_rng(1)
    rows = 400_000
    stays = []
    for _ in range(3):
        left = pandas.DataFrame(
            {
                "key": chance.integers(0, 5000, rows),
                "name": chance.integers(0, 800, rows).astype(str),
                "value": chance.random(rows),
            }
        )
        right = pandas.DataFrame({"key": numpy.arange(5000), "weight": chance.random(5000)})
        both = left.merge(right, on="key")
        both["product"] = both.value * both.weight
        groups = both.groupby(["name"]).agg({"product": ["sum", "mean"], "value": "max"})
        both.sort_values("product").head(10)
        stays.append(groups)
        del left, right, both, groups
    return stays


def tuples():
    """Lists of 250,000 tuples, made and dropped 12 times."""
    for _ in range(12):
        held = [(i, i, i) for i in range(250_000)]
        del held


def arrays():
    """NumPy temporaries of 8 KB to 8 MB in two threads: what the tuning of glibc costs."""
    import numpy

    def work(index):
        if index > 1:
            return
        for size, times in ((1 << 10, 6000), (1 << 13, 2000), (1 << 17, 150), (1 << 20, 15)):
            one, two = numpy.ones(size), numpy.ones(size)
            for _ in range(times):
                two = one + two * 0.5

    in_threads(work)


SMALL = {
    "json": documents,
    "trees": trees,
    "fragments": fragments,
    "wsgi": requests,
    "pandas": frames,
    "tuples": tuples,
}
"""The six of the quick run."""

WORKLOADS = {**SMALL, "numpy": arrays}
