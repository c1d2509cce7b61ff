"""Load for datasette: ``python load.py URL``.  Pages and JSON of many sizes, by four threads."""

import concurrent.futures
import sys
import urllib.request

PATHS = (
    "/table/rows?_size=1000",
    "/table/rows.json?_size=1000&_shape=objects",
    "/table/rows?_facet=place&_size=100",
    "/table.json?sql=select+place,count(*),avg(amount)+from+rows+group+by+place",
    "/table/rows.csv?_size=1000",
)
ROUNDS = 12


def fetch(url):
    """One request; an answer that is an error ends the load."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return len(answer.read())


def main(base):
    """All of it."""
    urls = [base + path for path in PATHS] * ROUNDS
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(fetch, urls))
    print(f"{len(sizes)} answers, {sum(sizes)} bytes")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
