"""Memory over time as SVG, as PNG, and as a page that needs nothing but itself.

The SVG is written by hand: lines, a few axes and words.  PNG is the same through
``resvg_py``, an optional extra.
"""

import html
import json
import os

WIDTH, HEIGHT = 960, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 50
COLORS = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""One for each configuration; told apart by people who see fewer colours, too."""
POINTS = 600
"""Of a line, at most: there are no more pixels."""


class Unplottable(Exception):
    """Why there is no plot."""


def check(path):
    """Raise `Unplottable` before anything is measured."""
    kind = os.path.splitext(path)[1].lower()
    if kind not in (".svg", ".png", ".html"):
        raise Unplottable(f"{path}: the name ends with .svg, .png or .html")
    if kind == ".png":
        rasterizer()
    where = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(where) or not os.access(where, os.W_OK):
        raise Unplottable(f"{path}: there is no directory that can be written")


def rasterizer():
    """The function that makes a PNG of an SVG."""
    try:
        import resvg_py
    except ImportError:
        raise Unplottable(
            "a PNG needs resvg_py: pip install 'pyalloc[plot]'; .svg and .html need nothing"
        ) from None
    return resvg_py.svg_to_bytes


def write(path, found, curves):
    """Write the plot of ``found``, the result of `compare`, in the form of its name.

    ``curves`` maps names to lists of curves, which are lists of (seconds, bytes).
    """
    picture = svg(curves, typical(found))
    kind = os.path.splitext(path)[1].lower()
    data = picture.encode()
    if kind == ".png":
        data = bytes(rasterizer()(svg_string=picture, width=2 * WIDTH, background="white"))
    elif kind == ".html":
        data = page(found, picture, curves).encode()
    with open(path, "wb") as file:
        file.write(data)


def typical(found):
    """For each configuration the run whose peak is the middle one."""
    places = {}
    for each in found["configurations"]:
        order = sorted((run["peak"], i) for i, run in enumerate(each["runs"]))
        if order:
            places[each["name"]] = order[(len(order) - 1) // 2][1]
    return places


def step(most, count):
    """A round distance between about ``count`` marks up to ``most``."""
    size = 10.0**-6
    while most / size > count:
        for factor in (2, 2.5, 2):
            size *= factor
            if most / size <= count:
                break
    return size


def number(value):
    """Of an axis."""
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def thin(curve):
    """At most `POINTS`; of the points left out the highest one stays."""
    if len(curve) <= POINTS:
        return curve
    size = -(-len(curve) // (POINTS // 2))
    parts = [curve[i : i + size] for i in range(0, len(curve), size)]
    found = []
    for part in parts:
        found += sorted({part[0], max(part, key=lambda point: point[1])})
    return found


def svg(curves, typical):
    """The picture."""
    every = [point for each in curves.values() for curve in each for point in curve]
    last = max([seconds for seconds, _ in every], default=1.0) or 1.0
    most = max([size for _, size in every], default=1 << 20) / 2**20 * 1.05
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(seconds, size):
        return LEFT + seconds / last * wide, TOP + high - size / most * high

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="13" role="img" aria-label="memory over time">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]  # fmt: skip
    gap = step(most, 8)
    for i in range(int(most / gap) + 1):
        _, y = at(0, i * gap)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(i * gap)}</text>'
        )
    gap = step(last, 10)
    for i in range(int(last / gap) + 1):
        x, _ = at(i * gap, 0)
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">'
            f"{number(i * gap)}</text>"
        )
    parts.append(
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#888"/>'
    )
    middle = TOP + high / 2
    parts.append(f'<text x="{LEFT + wide / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
                 "seconds</text>")  # fmt: skip
    parts.append(f'<text x="16" y="{middle:.0f}" text-anchor="middle" '
                 f'transform="rotate(-90 16 {middle:.0f})">resident MiB</text>')  # fmt: skip
    for color, (name, each) in zip(cycle(), curves.items()):
        parts.append(
            f'<g class="line" data-name="{html.escape(name)}" stroke="{color}" fill="none">'
        )
        for i, curve in enumerate(each):
            points = " ".join(
                f"{x:.1f},{y:.1f}" for x, y in (at(t, b / 2**20) for t, b in thin(curve))
            )
            style = 'stroke-width="2.5"' if i == typical.get(name) else 'opacity="0.3"'
            parts.append(f'<polyline points="{points}" {style}/>')
        parts.append("</g>")
    for i, (color, name) in enumerate(zip(cycle(), curves)):
        x, y = LEFT + 16, TOP + 16 + 18 * i
        parts.append(
            f'<g class="key" data-name="{html.escape(name)}"><rect x="{x - 4}" y="{y - 13}" '
            f'width="{44 + 8 * len(name)}" height="18" fill="#fff" opacity="0.8"/>'
            f'<path d="M{x} {y - 4}h24" stroke="{color}" stroke-width="3"/>'
            f'<text x="{x + 32}" y="{y}">{html.escape(name)}</text></g>'
        )
    return "\n".join([*parts, "</svg>\n"])


def cycle():
    """Colours without end."""
    while True:
        yield from COLORS


STYLE = """
body{font:16px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
code{background:#f2f2f2;padding:.1em .3em;border-radius:3px;overflow-wrap:anywhere}
svg{width:100%;height:auto;border:1px solid #ddd}
.key{cursor:pointer}.off{opacity:.25}.line.off{display:none}
table{border-collapse:collapse;margin:1rem 0;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th:first-child,td:first-child,td.why{text-align:left}td.why{white-space:normal;color:#666}
tr.choice{background:#e8f5e9;font-weight:600}
#reading{min-height:1.5em;font-variant-numeric:tabular-nums;color:#444}
"""

SCRIPT = """
const curves = JSON.parse(document.getElementById("curves").textContent);
const picture = document.querySelector("svg"), reading = document.getElementById("reading");
const hidden = new Set();
for (const key of document.querySelectorAll(".key")) key.addEventListener("click", () => {
  const name = key.dataset.name;
  hidden.has(name) ? hidden.delete(name) : hidden.add(name);
  for (const part of document.querySelectorAll("[data-name]"))
    part.classList.toggle("off", hidden.has(part.dataset.name));
});
picture.addEventListener("pointermove", event => {
  const box = picture.getBoundingClientRect(), view = picture.viewBox.baseVal;
  const x = (event.clientX - box.left) / box.width * view.width;
  const seconds = (x - curves.left) / curves.wide * curves.last;
  if (seconds < 0 || seconds > curves.last) return;
  const parts = [];
  for (const [name, curve] of Object.entries(curves.typical)) {
    if (hidden.has(name)) continue;
    let value = null;
    for (const [moment, size] of curve) { if (moment > seconds) break; value = size; }
    if (value !== null && curve[curve.length - 1][0] >= seconds) parts.push(name + " " + value);
  }
  reading.textContent = seconds.toFixed(2) + " s: " + (parts.join(", ") || "-") + " MiB";
});
document.body.dataset.ready = "yes";
"""


def page(found, picture, curves):
    """One HTML file: nothing is fetched, and without scripts the picture is still there."""
    places = typical(found)
    last = max([t for each in curves.values() for c in each for t, _ in c], default=1.0) or 1.0
    data = {
        "left": LEFT,
        "wide": WIDTH - LEFT - RIGHT,
        "last": last,
        "typical": {
            name: [[round(t, 3), round(size / 2**20, 1)] for t, size in thin(each[places[name]])]
            for name, each in curves.items()
            if name in places
        },
    }
    numbers = json.dumps(data).replace("<", "\\u003c")
    command = html.escape(found["command_line"])
    verdict = found["recommendation"]
    choice = verdict["choice"] or "none"
    because = "".join(f"<li>{html.escape(text)}</li>" for text in verdict["because"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Memory of {command}</title><style>{STYLE}</style></head><body>
<h1>Memory over time</h1>
<p><code>{command}</code>, {found["rounds"]} interleaved round(s). The strong line is the run
with the middle peak. A click on a name hides its lines.</p>
{picture}<p id="reading" aria-live="off"></p>
<h2>Recommendation: {html.escape(choice)}</h2><p>{html.escape(verdict["sure"])}</p>
<ul>{because}</ul>
{table(found)}
<p>{html.escape(found["machine"])}</p>
<script type="application/json" id="curves">{numbers}</script>
<script>{SCRIPT}</script>
</body></html>
"""


def table(found):
    """The figures, as HTML."""
    head, rows = found["table"]["head"], found["table"]["rows"]
    lines = ["<table><tr>", *(f"<th>{html.escape(name)}</th>" for name in head), "</tr>"]
    for row in rows:
        chosen = ' class="choice"' if row[0] == found["recommendation"]["choice"] else ""
        lines.append(f"<tr{chosen}>")
        if len(row) < len(head):
            lines.append(f"<td>{html.escape(row[0])}</td>")
            lines.append(f'<td class="why" colspan="{len(head) - 1}">{html.escape(row[-1])}</td>')
        else:
            lines += [f"<td>{html.escape(str(cell))}</td>" for cell in row]
        lines.append("</tr>")
    return "\n".join([*lines, "</table>"])
