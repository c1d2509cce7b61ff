"""Memory over time, looked at: the page in a browser, the picture as pixels."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from alloc.cli import _plot

pytestmark = [pytest.mark.needs_processes]

NAMES = ("stock", "glibc", "full")
CURVES = {
    name: [[(t / 100, (20 + 10 * i + (t % 50)) << 20) for t in range(n)] for n in (90, 100, 120)]
    for i, name in enumerate(NAMES)
}
COMMAND = "python -c '</script><script>document.title=\"owned\"</script>' & <b>"
FOUND = {
    "command_line": COMMAND,
    "rounds": 3,
    "machine": "a machine",
    "configurations": [
        {"name": name, "runs": [{"peak": 3}, {"peak": 1}, {"peak": 2}]} for name in NAMES
    ],
    "recommendation": {"choice": "full", "sure": "sure", "because": ["end <50 %"], "others": {}},
    "table": {
        "head": ["configuration", "time", "peak"],
        "rows": [["stock", "1", "2"], ["full", "1", "1"], ["mimalloc", "cannot run: <why>"]],
    },
}


def test_the_svg_is_well_formed_and_complete(tmp_path):
    _plot.write(str(tmp_path / "p.svg"), FOUND, CURVES)
    root = ElementTree.parse(tmp_path / "p.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f".//{space}polyline")
    assert len(lines) == 9
    strong = [line for line in lines if line.get("stroke-width")]
    assert len(strong) == 3  # the run with the middle peak of each
    for line in lines:
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert _plot.LEFT <= x <= _plot.WIDTH - _plot.RIGHT + 0.1
            assert _plot.TOP - 0.1 <= y <= _plot.HEIGHT - _plot.BOTTOM
    texts = {text.text for text in root.findall(f".//{space}text")}
    assert {*NAMES, "seconds", "resident MiB", "0", "1"} <= texts


def test_thinning_keeps_the_peak_and_the_ends():
    curve = [(t / 1000, 5) for t in range(20_000)]
    curve[12_345] = (12.345, 9)
    thin = _plot.thin(curve)
    assert len(thin) <= _plot.POINTS and (12.345, 9) in thin and thin[0] == curve[0]
    assert thin == sorted(thin)
    _plot.svg({"empty": [[]], "none": []}, {})


@pytest.mark.parametrize(("most", "count"), [(0.003, 8), (1, 10), (7, 8), (123.4, 8), (99999, 8)])
def test_axes_have_round_steps(most, count):
    step = _plot.step(most, count)
    assert count / 3 < most / step <= count
    assert re.fullmatch(r"(1|2|5)0*", f"{step:.6f}".replace(".", "").strip("0") or "1")


@pytest.mark.needs_resvg
def test_the_png_shows_every_line(tmp_path):
    from PIL import Image

    _plot.check(str(tmp_path / "p.png"))
    _plot.write(str(tmp_path / "p.png"), FOUND, CURVES)
    seen = colors(Image.open(tmp_path / "p.png"))
    assert all(seen[color] > 200 for color in _plot.COLORS[: len(NAMES)])
    assert seen[_plot.COLORS[5]] == 0


def colors(image):
    """How many pixels there are of each colour of the lines."""
    pixels = image.convert("RGB").getcolors(1 << 24)
    known = {tuple(bytes.fromhex(color[1:])): color for color in _plot.COLORS}
    found = dict.fromkeys(_plot.COLORS, 0)
    for count, pixel in pixels:
        if pixel in known:
            found[known[pixel]] += count
    return found


def test_a_png_without_resvg_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(_plot.Unplottable, match=r"pip install 'pyalloc\[plot\]'"):
        _plot.check(str(tmp_path / "p.png"))
    _plot.check(str(tmp_path / "p.svg"))


def browse(tmp_path, *words):
    """What a browser without a network prints when it opens the page."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    assert browser, "no chromium: apt-get install chromium, or --without browser"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
            "--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=1200,1100", *words,
        ],
        capture_output=True, timeout=120, check=False, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


@pytest.mark.needs_browser
@pytest.mark.needs_resvg
def test_the_page_in_a_browser(tmp_path):
    from PIL import Image

    page = tmp_path / "p.html"
    _plot.write(str(page), FOUND, CURVES)
    text = page.read_text()
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|fetch\(", text), (
        "the page fetches something"
    )
    # As a person would: point at the middle of the picture, hide one configuration.
    driver = """<script>
const box = document.querySelector("svg").getBoundingClientRect();
document.querySelector("svg").dispatchEvent(new PointerEvent("pointermove",
  {clientX: box.left + box.width / 2, clientY: box.top + 50, bubbles: true}));
document.querySelector('.key[data-name="glibc"]').dispatchEvent(new Event("click"));
document.body.dataset.box = [box.left, box.top, box.width, box.height].map(Math.round).join(" ");
</script></body>"""
    driven = tmp_path / "driven.html"
    driven.write_text(text.replace("</body>", driver))
    dom = browse(tmp_path, "--dump-dom", driven.as_uri())
    assert 'data-ready="yes"' in dom, "the script did not run to its end"
    reading = re.search(r'id="reading"[^>]*>([^<]*)<', dom)[1]
    assert re.match(
        r"0\.5\d s: stock \d+(\.\d)?, glibc \d+(\.\d)?, full \d+(\.\d)? MiB", reading
    ), reading
    assert re.search(r'class="line off" data-name="glibc"', dom)
    assert not re.search(r'class="line off" data-name="(stock|full)"', dom)
    assert "<title>Memory of python -c '&lt;/script&gt;" in dom and "owned</title>" not in dom
    assert "cannot run: &lt;why&gt;" in dom and 'class="choice"' in dom
    shot = tmp_path / "p.png"
    browse(tmp_path, f"--screenshot={shot}", page.as_uri())
    seen = colors(Image.open(shot))
    assert all(seen[color] > 100 for color in _plot.COLORS[: len(NAMES)]), seen
    browse(tmp_path, f"--screenshot={shot}", driven.as_uri())
    hidden = colors(Image.open(shot))
    assert hidden[_plot.COLORS[1]] < seen[_plot.COLORS[1]] / 4


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
@pytest.mark.needs_proc
def test_compare_draws(tmp_path):
    code = "x = bytearray(30 << 20); import time; time.sleep(0.1)"
    command = [sys.executable, "-m", "alloc", "compare", "-n", "2", "--configs=full", "--json"]
    for name in ("p.html", "p.svg"):
        done = subprocess.run(
            [*command, "--plot", name, "--", sys.executable, "-c", code],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert [each["name"] for each in json.loads(done.stdout)["configurations"]] == [
            "stock",
            "full",
        ]
        assert (tmp_path / name).read_text().count("<polyline") == 4
