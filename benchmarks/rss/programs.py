"""Three programs that others wrote, under load, each in this process.

Their input is made once by `prepare`, before anything is measured.
"""

import asyncio
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def prepare(folder: str) -> None:
    """Write the input of all of them into ``folder``."""
    chance = random.Random(7)
    with open(os.path.join(folder, "sales.csv"), "w", encoding="utf-8") as file:
        file.write("day,shop,product,customer,amount,price,comment\n")
        for i in range(400_000):
            file.write(
                f"2024-{i % 12 + 1:02}-{i % 28 + 1:02},shop {chance.randrange(300)},"
                f"p{chance.randrange(4000)},c{chance.randrange(90_000)},"
                f"{chance.randrange(1, 20)},{chance.random() * 90:.2f},comment {i % 5000}\n"
            )
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    library = sysconfig.get_paths()["stdlib"]
    for name in sorted(os.listdir(library)):
        path = os.path.join(library, name)
        if name.endswith(".py") and 20_000 < os.path.getsize(path) < 90_000:
            shutil.copy(path, tree)
    keep = sorted(os.listdir(tree))[:8]
    for name in os.listdir(tree):
        if name not in keep:
            os.remove(os.path.join(tree, name))


def service(folder: str):
    """FastAPI under uvicorn; load.py sends 640 requests over 16 connections."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel

    class Order(BaseModel):
        id: int
        customer: str
        lines: list[dict]

    application = FastAPI()
    recent: dict[int, dict] = {}

    @application.post("/orders")
    def orders(items: list[Order]):  # not async: on one of the worker threads
        for item in items[:2]:
            recent[item.id % 500] = {"customer": item.customer, "lines": len(item.lines)}
        return [{"id": i.id, "total": sum(line["price"] for line in i.lines)} for i in items]

    @application.post("/upload")
    async def upload(request: Request):
        body = await request.body()
        return JSONResponse({"bytes": len(body), "lines": len(body.split(b"\n"))})

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True
    )
    thread.start()
    while not server.started:
        time.sleep(0.02)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "MALLOC", "PYTHONM"))}
    subprocess.run(
        [sys.executable, os.path.join(HERE, "load.py"), str(port)],
        check=True, env=plain, close_fds=False,
    )  # fmt: skip
    return server, thread, recent


def etl(folder: str):
    """pandas: a 26 MB CSV file is read, cleaned, joined, grouped, and written twice."""
    import pandas

    out = os.path.join(folder, f"out-{os.getpid()}.csv")
    sales = pandas.read_csv(os.path.join(folder, "sales.csv"))
    sales["day"] = pandas.to_datetime(sales.day)
    sales["total"] = sales.amount * sales.price
    sales["shop"] = sales.shop.str.upper().str.strip()
    customers = sales.groupby("customer").total.agg(["sum", "count"]).reset_index()
    both = sales.merge(customers, on="customer")
    both = both[both["count"] > 2].sort_values(["shop", "day"])
    monthly = both.groupby([both.day.dt.month, "shop"]).total.sum().unstack()
    both.head(60_000).to_csv(out, index=False)
    again = pandas.read_csv(out)
    os.remove(out)
    return monthly, again.total.sum()


def formatter(folder: str):
    """black over modules of the standard library, in one process."""
    import black

    try:
        black.main(
            ["--check", "--quiet", "--fast", "--workers", "1", os.path.join(folder, "tree")],
            standalone_mode=False,
        )
    except SystemExit:
        pass


PROGRAMS = {"fastapi": service, "etl": etl, "black": formatter}
