"""Input for the applications of docs/compare.md: ``python data.py DIRECTORY``.

Writes ``table.csv`` and ``table.db``, the same made-up rows from a fixed seed.
"""

import csv
import pathlib
import random
import sqlite3
import sys

ROWS = 60_000
WORDS = ["red", "green", "blue", "amber", "coral", "slate", "olive", "ivory", "umber", "khaki"]
COLUMNS = ("id", "name", "place", "day", "amount", "share", "note")


def rows():
    """The rows."""
    rng = random.Random(20)
    for number in range(ROWS):
        yield (
            number,
            f"{rng.choice(WORDS)} {rng.randrange(5000)}",
            rng.choice(WORDS),
            f"2024-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
            round(rng.lognormvariate(3, 1), 2),
            rng.random() if rng.random() > 0.05 else None,
            " ".join(rng.choices(WORDS, k=rng.randrange(3, 12))),
        )


def main(place):
    """Write both."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows())
    base = place / "table.db"
    base.unlink(missing_ok=True)
    with sqlite3.connect(base) as db:
        db.execute(f"create table rows ({', '.join(COLUMNS)})")
        db.executemany(f"insert into rows values ({', '.join('?' * len(COLUMNS))})", rows())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
