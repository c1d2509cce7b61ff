"""results/rss.svg: resident memory over time, with and without.  No library needed."""

from __future__ import annotations

PANELS = {
    "fragments": "8 threads, buffers, few survive",
    "wsgi": "a WSGI service, 8 threads",
    "fastapi": "FastAPI under load",
}
LINES = {"stock": "stock", "glibc both": "glibc", "alloc hybrid": "hybrid", "alloc full": "full"}
NAMES = {
    "stock": "python",
    "glibc both": "python, glibc tuned",
    "alloc hybrid": "alloc, hybrid",
    "alloc full": "alloc, full",
}

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 880, 300, 44, 62, 34, 30

STYLE = """\
text{font:12px system-ui,sans-serif;fill:#57606a}
.title{font-size:13px;font-weight:600;fill:#24292f}
.grid{stroke:#8c959f;stroke-opacity:.3}
path{fill:none;stroke-width:2;stroke-linejoin:round}
.stock{stroke:#cf222e}.glibc{stroke:#bf8700}.hybrid{stroke:#0969da}.full{stroke:#1a7f37}
@media (prefers-color-scheme:dark){text{fill:#9198a1}.title{fill:#e6edf3}
.stock{stroke:#ff7b72}.glibc{stroke:#d29922}.hybrid{stroke:#58a6ff}.full{stroke:#3fb950}}"""


def step(most: float) -> float:
    """A round distance between grid lines, for four or five of them."""
    unit = 10.0 ** (len(str(int(most / 5))) - 1)
    return next(unit * n for n in (1, 2, 5, 10) if unit * n * 5 >= most)


def thinned(line: list, width: float) -> list:
    """At most about two points a pixel, the highest and the lowest of each stretch."""
    count = max(1, len(line) // int(width))
    points = []
    for start in range(0, len(line), count):
        part = line[start : start + count]
        low, high = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        points += sorted({tuple(low), tuple(high)})
    return points


def until_trimmed(sample: dict) -> list:
    """The line up to the look 1 s after release: what `child.py` trims then is no part."""
    line = sample["line"]
    end = len(line)
    while end > 1 and abs(line[end - 1][1] - sample["after"]) > 1 << 20:
        end -= 1
    return line[:end]


def panel(samples: dict, title: str, left: float, width: float) -> list[str]:
    lines = {name: until_trimmed(samples[name][0]) for name in LINES if samples.get(name)}
    longest = max(line[-1][0] for line in lines.values())
    most = max(size for line in lines.values() for _, size in line) / (1 << 20)
    height = HEIGHT - TOP - BOTTOM
    gap = step(most)
    top = gap * (int(most / gap) + 1)
    out = [f'<text class="title" x="{left:.0f}" y="{TOP - 12}">{title}</text>']
    for i in range(int(top / gap) + 1):
        y = TOP + height * (1 - i * gap / top)
        out.append(
            f'<line class="grid" x1="{left:.0f}" x2="{left + width:.0f}" y1="{y:.1f}"'
            f' y2="{y:.1f}"/>'
            f'<text x="{left - 6:.0f}" y="{y + 4:.1f}" text-anchor="end">{i * gap:.0f}</text>'
        )
    for second in range(int(longest) + 1):
        if second % max(1, round(longest / 6)) == 0:
            x = left + width * second / longest
            out.append(
                f'<text x="{x:.0f}" y="{TOP + height + 16}" text-anchor="middle">{second} s</text>'
            )
    for name, line in lines.items():
        dots = " ".join(
            f"{left + width * when / longest:.1f},{TOP + height * (1 - size / (1 << 20) / top):.1f}"
            for when, size in thinned(line, width)
        )
        out.append(f'<path class="{LINES[name]}" d="M{dots}"/>')
    return out


def draw(found: dict) -> str:
    """The picture, or nothing where no workload of it was measured."""
    chosen = [name for name in PANELS if name in found and found[name].get("stock")]
    if not chosen:
        return ""
    width = (WIDTH - len(chosen) * LEFT - GAP) / len(chosen)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Resident memory over time, in MiB</title>",
        f"<style>{STYLE}</style>",
    ]
    x = LEFT
    for name in LINES:
        out.append(
            f'<path class="{LINES[name]}" d="M{x} 18h22"/>'
            f'<text x="{x + 28}" y="22">{NAMES[name]}</text>'
        )
        x += 60 + 8 * len(NAMES[name])
    out.append(
        f'<text x="{WIDTH - 10}" y="22" text-anchor="end">MiB resident; last second: idle</text>'
    )
    for i, name in enumerate(chosen):
        out += panel(found[name], PANELS[name], LEFT + i * (width + LEFT), width)
    return "\n".join([*out, "</svg>"]) + "\n"
