"""One process with pyarrow, polars, duckdb and torch at work: neighbours.py MODE first|last

`install()` comes before their import, or after it and some of their work.  Each
round's results are compared with each other; every round ends with a trim().
"""

import gc
import io
import sys
import threading

import alloc

mode, order = sys.argv[1:]
if order == "first":
    assert alloc.install(python=mode).python == mode

import duckdb
import numpy
import polars
import pyarrow
import pyarrow.parquet
import torch

ROWS, KEYS = 300_000, 97
numbers = numpy.random.default_rng(1)


def tables():
    """A group-by by three engines on one table, through a Parquet file in memory."""
    key = numbers.integers(0, KEYS, ROWS)
    value = numbers.random(ROWS)
    table = pyarrow.table({"key": key, "value": value, "name": [f"row {k}" for k in key]})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, compression="zstd")
    table = pyarrow.parquet.read_table(io.BytesIO(file.getvalue()))
    truth = numpy.bincount(key, weights=value, minlength=KEYS)

    arrow = table.group_by("key").aggregate([("value", "sum")]).sort_by("key")
    assert numpy.allclose(arrow["value_sum"].to_numpy(), truth)
    frame = polars.from_arrow(table)
    grouped = frame.lazy().group_by("key").agg(polars.col("value").sum()).sort("key").collect()
    assert numpy.allclose(grouped["value"].to_numpy(), truth)
    joined = frame.join(grouped, on="key").select(polars.col("name").str.to_uppercase())
    assert joined.height == ROWS
    with duckdb.connect() as connection:
        connection.register("numbers", table)
        said = connection.sql("select key, sum(value) from numbers group by key order by key")
        assert numpy.allclose([row[1] for row in said.fetchall()], truth)


def pools():
    """Each of Arrow's own memory pools."""
    for name in pyarrow.supported_memory_backends():
        pool = getattr(pyarrow, f"{name}_memory_pool")()
        array = pyarrow.array(range(100_000), memory_pool=pool)
        assert array.sum().as_py() == 4_999_950_000, name
        del array
        pool.release_unused()


def learning():
    """Some steps of training, on tensors that share NumPy's memory."""
    x = torch.from_numpy(numbers.random((2_000, 64), dtype=numpy.float32))
    y = x.sum(dim=1, keepdim=True)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def our_own():
    """Python objects and blocks of ours, made while the others work."""
    for size in range(1, 60_000, 11):
        with alloc.allocate(size) as block:
            memoryview(block)[size - 1 :] = b"x"
    assert sum(len(str(n)) for n in range(50_000)) == 238_890


JOBS = (tables, pools, learning, our_own)
failed = []


def guarded(job):
    try:
        job()
    except BaseException as error:
        failed.append((job.__name__, repr(error)))


if order == "last":
    for job in JOBS:
        job()
    assert alloc.install(python=mode).python == mode

for _ in range(3):
    threads = [threading.Thread(target=guarded, args=(job,)) for job in JOBS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    gc.collect()
    alloc.trim()

assert alloc.Jemalloc().owns(id(bytes(100_000)))
assert alloc.verify(), alloc.verify()
kept = [numbers.random(100_000) for _ in range(10)]
alloc.uninstall()
del kept
tables()
print("all served")
