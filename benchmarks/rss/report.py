"""The tables and verdicts of results/rss.md, from the samples."""

from __future__ import annotations

import os
from statistics import mean, median

from common import HERE, ratio, say, table
from configurations import CONFIGURATIONS, CONTROL, OURS, RIVALS
from picture import draw

MIB = 1 << 20
WITHIN = 2.0  # MiB over the best rival, 1 s after release
PEAK, CPU = 1.10, 1.02  # times stock

INTRODUCTION = f"""\
Columns: MiB resident at the peak, 1 s after everything was dropped, and after trimming
(`alloc.trim()`, `malloc_trim(0)`, jemalloc's purge; a garbage collection before each);
page faults in thousands.  Medians (least-most).  Trimming has no way into CPython's mimalloc.

*CPU* is CPU time of the process, start-up and the second of waiting included, against
stock's: the mean of the fastest third of the runs, as others on the machine only ever make a
run slower (quartiles of the round-by-round ratios).  *{CONTROL}* is stock a second time: as
far as it is from 1.00, a ratio says nothing.  With two rounds, as rivals have, that can be half.

*preload* is `LD_PRELOAD` of jemalloc-sys' own library, so the same version and build.

Targets for ours: 1 s after release at most {WITHIN:.0f} MiB above the best rival and never
above stock; peak at most {PEAK:.2f} times stock; CPU time at most {CPU:.2f} times.  A preload
with `PYTHONMALLOC=malloc` has no allocator for small objects, and is full's like; hybrid's
are the others, in a column of their own."""

NOTES = {
    "json": "eight threads parse and write JSON documents of 2 MB",
    "trees": "small dicts and tuples, 50 MB, one in a thousand survives",
    "fragments": "eight threads, buffers of 600 B to 60 KB, few survive",
    "wsgi": "a WSGI application on eight threads that stay",
    "pandas": "joins, groups and sorts of 400,000 rows",
    "tuples": "lists of 250,000 tuples, made and dropped",
    "numpy": "temporaries of 8 KB to 8 MB in two threads",
    "fastapi": "FastAPI under uvicorn, 640 requests from a second process",
    "etl": "pandas: a CSV file of 26 MB read, joined, grouped, written",
    "black": "black over 8 modules of the standard library",
}


def sizes(samples: list[dict], what: str) -> list[float]:
    return [sample[what] / MIB for sample in samples]


def span(values: list[float]) -> str:
    low, high = min(values), max(values)
    text = f"{median(values):.1f}"
    return text if high - low < 0.5 else f"{text} ({low:.0f}-{high:.0f})"


def fastest(times: list[float]) -> float:
    """The mean of the fastest third."""
    return mean(sorted(times)[: (len(times) + 2) // 3])


def cpu(samples: list[dict], base: list[dict]) -> tuple[float, float, float]:
    """CPU time against the base's runs of the same rounds; quartiles of their ratios."""
    rounds = {sample["round"]: sample["cpu"] for sample in base}
    samples = [sample for sample in samples if sample["round"] in rounds]
    ours, theirs = [s["cpu"] for s in samples], [rounds[s["round"]] for s in samples]
    low, _, high = ratio(ours, theirs)
    return fastest(ours) / fastest(theirs), low, high


def rows(found: dict) -> list[list[str]]:
    base = found.get("stock") or []
    lines = []
    for name in CONFIGURATIONS:
        samples = found.get(name)
        if isinstance(samples, str):
            lines.append([name, samples, "", "", "", ""])
        elif samples:
            time, low, high = cpu(samples, base) if base else (0.0, 0.0, 0.0)
            lines.append(
                [
                    name,
                    *(span(sizes(samples, what)) for what in ("peak", "after", "trimmed")),
                    f"{time:.2f} ({low:.2f}-{high:.2f})" if base else
                    f"{median([s['cpu'] for s in samples]):.2f} s",
                    f"{median([s['faults'] for s in samples]) / 1000:.0f}",
                ]
            )  # fmt: skip
    return lines


def tables(found: dict) -> list[str]:
    heads = ["configuration", "peak", "1 s after", "trimmed", "CPU", "faults"]
    return [
        f"## {name}: {NOTES[name]}\n\n{table(heads, rows(samples))}"
        for name, samples in found.items()
    ]


def middle(found: dict, name: str, what: str) -> float:
    return median(sizes(found[name], what))


def release(samples: dict, ours: str, rivals: list[str]) -> str:
    best = min(rivals, key=lambda name: middle(samples, name, "after"))
    after, least = middle(samples, ours, "after"), middle(samples, best, "after")
    above = after > middle(samples, "stock", "after") + 0.5
    if after - least <= WITHIN and not above:
        verdict = "met"
    else:
        verdict = f"missed, {after - least:+.1f} MiB" + ", above stock" * above
    return f"{after:.1f} against {least:.1f} ({best}): {verdict}"


def verdicts(found: dict, ours: str) -> str:
    """One line for each workload: how ours stands against the targets."""
    lines = []
    for workload, samples in found.items():
        if not samples.get(ours) or not samples.get("stock"):
            continue
        rivals = [n for n in RIVALS if isinstance(samples.get(n), list) and samples[n]]
        peak = middle(samples, ours, "peak") / middle(samples, "stock", "peak")
        time = cpu(samples[ours], samples["stock"])[0]
        control = samples.get(CONTROL)
        error = f" ({CONTROL} {cpu(control, samples['stock'])[0]:.2f})" if control else ""
        lines.append(
            [
                workload,
                release(samples, ours, rivals),
                release(samples, ours, [n for n in rivals if "PYTHONMALLOC=malloc" not in n]),
                f"{peak:.2f}: " + ("met" if round(peak, 2) <= PEAK else "missed"),
                f"{time:.2f}{error}: " + ("met" if round(time, 2) <= CPU else "missed"),
            ]
        )  # fmt: skip
    heads = ["workload", "1 s after release, MiB", "the same, rivals with an allocator for objects"]
    return table([*heads, "peak / stock", "CPU / stock"], lines)


def publish(found: dict, head: list[str]) -> None:
    """Write results/rss.md and results/rss.svg."""
    lists = [kept for samples in found.values() for kept in samples.values()]
    rounds = [len(kept) for kept in lists if isinstance(kept, list)]
    head = [
        "- command: `make bench-rss`",
        *head,
        f"- rounds taken in turns: {min(rounds)}"
        + f" to {max(rounds)}, the most of stock and of ours" * (len(set(rounds)) > 1),
    ]
    if hasattr(os, "getloadavg"):
        head.append(f"- load average at the end: {os.getloadavg()[0]:.1f}")
    parts = ["# Memory that a process keeps", "\n".join(head), INTRODUCTION]
    for ours in OURS:
        said = ", the default on this Python" * (ours == OURS[0])
        parts.append(f"## Against the targets: {ours}{said}\n\n{verdicts(found, ours)}")
    parts += tables(found)
    folder = os.path.join(HERE, "results")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "rss.md"), "w", encoding="utf-8") as file:
        file.write("\n\n".join(parts) + "\n")
    picture = draw(found)
    if picture:
        with open(os.path.join(folder, "rss.svg"), "w", encoding="utf-8") as file:
            file.write(picture)
    say("written: results/rss.md" + ", results/rss.svg" * bool(picture))
