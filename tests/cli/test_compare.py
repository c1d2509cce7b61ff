"""`compare`: what is run and measured, what is said of it, and what cannot be."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from patience import seconds

from alloc.cli import _configs, _measure, _verdict

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc, pytest.mark.needs_proc]

COMPARE = [sys.executable, "-m", "alloc", "compare"]


def compare(*words, cwd=None, **env):
    full = {k: v for k, v in os.environ.items() if not k.startswith("ALLOC_")}
    done = subprocess.run(
        [*COMPARE, *words], cwd=cwd, env={**full, **env}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def found(*words, **env):
    status, out, err = compare("--json", *words, **env)
    assert status == 0, err
    result = json.loads(out)
    return result, {each["name"]: each for each in result["configurations"]}


@pytest.mark.needs_pymalloc
@pytest.mark.needs_glibc
def test_each_configuration_is_run_as_it_says(tmp_path):
    log = tmp_path / "log"
    code = (
        "import alloc, os, sys\n"
        "where = alloc.installed().python or ('process' if 'libjemalloc' in alloc.facts().malloc else 'none')\n"
        "name = str(__import__('alloc._route')._route.allocator_name())\n"
        f"open({str(log)!r}, 'a').write(' '.join([where, name, str(os.environ.get('MALLOC_ARENA_MAX'))]) + chr(10))\n"
    )
    result, by_name = found("-n", "2", "--", sys.executable, "-X", "utf8", "-c", code)
    ran = sorted(set(log.read_text().splitlines()))
    assert {
        "none pymalloc None",
        "none pymalloc 2",
        "process pymalloc None",
        "process malloc None",
    } <= {*ran}
    assert [line.split()[0] for line in ran if line[0] in "hf"] == ["full", "hybrid"]
    assert list(by_name) == list(_configs.CONFIGS)
    for name, each in by_name.items():
        assert (len(each["runs"]) == 2) == (each["cannot"] is None), name
    assert result["rounds"] == 2 and result["recommendation"]["sure"]
    if sys.version_info < (3, 13):
        assert "unknown allocator" in by_name["mimalloc"]["cannot"]


def test_memory_is_that_of_the_whole_family():
    # Mapped, not allocated: nobody keeps it.
    touch = (
        "import mmap, subprocess, sys, time\n"
        "x = mmap.mmap(-1, {0} << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "if hasattr(mmap, 'MADV_NOHUGEPAGE'): x.madvise(mmap.MADV_NOHUGEPAGE)\n"
        "for i in range(0, {0} << 20, 4096): x[i] = 1\n"
    )
    child = touch.format(100) + "time.sleep(0.4)"
    code = touch.format(50) + f"subprocess.run([sys.executable, '-c', {child!r}])\n"
    code += "x.close(); time.sleep(0.4)"
    run = _measure.run([sys.executable, "-c", code], dict(os.environ))
    assert run.failed is None and run.processes == 2 and run.status == 0
    assert 150 << 20 < run.peak < 260 << 20 and run.end < 50 << 20
    assert run.seconds >= 0.8 and run.faults > 150 * 256 * 0.9
    assert max(size for _, size in run.curve) <= run.peak


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; print('why', file=sys.stderr); sys.exit(3)", "exit status 3: why"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("import time; time.sleep(60)", "ran longer than 0.3 s"),
    ],
)
def test_a_run_that_does_not_count(code, text):
    run = _measure.run(
        [sys.executable, "-c", code], dict(os.environ), timeout=0.3 if "60" in code else 30
    )
    # An emulator says of a signal that it ended the program.
    assert run.failed.partition(": qemu: ")[0] == text


def test_nothing_of_a_run_outlives_it(tmp_path):
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, file=open('pid', 'w')); sys.exit(1)"
    run = _measure.run(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {code}"], dict(os.environ)
    )
    assert run.failed == "exit status 1"
    pid = int((tmp_path / "pid").read_text())
    limit = time.monotonic() + seconds(10)
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_that_does_not_exist(tmp_path):
    assert compare("--", "no-such-command", "x") == (
        127,
        "",
        "python -m alloc compare: no-such-command: not found\n",
    )
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert compare("--", str(plain))[0] == 127
    status, _, err = compare("--", sys.executable, str(tmp_path / "none.py"))
    assert status == 2 and "the command fails as it is: exit status 2: " in err and "none.py" in err


def test_a_script_that_fails_keeps_its_status():
    status, out, err = compare("--", sys.executable, "-c", "1/0")
    assert (status, out) == (1, "") and err.endswith(
        "exit status 1: ZeroDivisionError: division by zero\n"
    )
    assert compare("--", sys.executable, "-c", "raise SystemExit(7)")[0] == 7
    code = "import os; os.kill(os.getpid(), 9)"
    assert compare("--", sys.executable, "-c", code)[0] == 137
    words = ["-n", "1", "--configs=hybrid", "--status=7", "--"]
    assert compare(*words, sys.executable, "-c", "raise SystemExit(7)")[0] == 0


def test_what_cannot_run_stands_in_the_table():
    status, out, _ = compare("-n", "1", "--", "sleep", "0.05")
    assert status == 0 and "hybrid         cannot run: sleep is no program of Python" in out
    by_name = found("-n", "1", "--", sys.executable, "-I", "-c", "pass")[1]
    assert by_name["process-full"]["cannot"].endswith(
        "full needs PYTHONMALLOC, which -E and -I ignore"
    )
    assert by_name["mimalloc"]["cannot"]
    assert by_name["hybrid"]["cannot"] is None
    by_name = found(
        "-n",
        "1",
        "--configs",
        "full,process",
        "--",
        sys.executable,
        "-c",
        "pass",
        ALLOC_EMBEDDING="guest",
    )[1]
    assert "guest" in by_name["full"]["cannot"] and "guest" in by_name["process"]["cannot"]
    by_name = found("-n", "1", "--configs=full", "--", sys.executable, "-S", "-c", "pass")[1]
    assert "pyalloc is not installed for" in by_name["full"]["cannot"]


def test_a_configuration_that_fails_is_told_and_not_taken():
    code = "import alloc, sys; sys.exit('not here' if alloc.installed() else 0)"
    result, by_name = found("-n", "2", "--configs=hybrid,glibc", "--", sys.executable, "-c", code)
    assert (
        by_name["hybrid"]["failed"] == "exit status 1: not here"
        and by_name["glibc"]["failed"] is None
    )
    assert result["recommendation"]["choice"] != "hybrid"
    assert ["hybrid", "failed: exit status 1: not here"] in result["table"]["rows"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_too(tmp_path, number):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    process = subprocess.Popen([*COMPARE, "--", sys.executable, "-c", code], stdout=-1, stderr=-1)
    limit = time.monotonic() + seconds(60)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and b"Traceback" not in err
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "nothing to run: put the command after --"),
        (["-n", "0", "--", "true"], "-n is at least 1"),
        (["--configs=tcmalloc", "--", "true"], "--configs tcmalloc: use stock, glibc, hybrid"),
        (["--plot=p.gif", "--", "true"], "the name ends with .svg, .png or .html"),
        (["--plot=no/such/p.svg", "--", "true"], "there is no directory that can be written"),
        (["--ready=1", "--", "true"], "--ready and --settle are for services"),
        (["--load=true", "--ready=here", "--", "true"], "--ready here: write HOST:PORT"),
    ],
)
def test_wrong_usage(words, text):
    status, out, err = compare(*words)
    assert (status, out) == (2, "") and text in err


SERVICE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    kept = []
    def do_GET(self):
        self.kept.append(b"x" * (10 << 20)); self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_service_under_load(tmp_path):
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (tmp_path / "load.py").write_text(
        f"from urllib.request import urlopen\nfor _ in range(5): urlopen('http://127.0.0.1:{port}').read()\n"
    )
    load = f"{sys.executable} {tmp_path / 'load.py'}"
    words = ["-n", "1", "--configs=full", "--settle=0.2", "--ready", f"127.0.0.1:{port}"]
    service = [sys.executable, "-c", SERVICE, str(port)]
    by_name = found(*words, "--load", load, "--", *service)[1]
    for name in ("stock", "full"):
        run = by_name[name]["runs"][0]
        assert run["end"] > 50 << 20 and run["status"] == -signal.SIGTERM, name
    status, _, err = compare(*words, "--load", f"{sys.executable} -c 1/0", "--", *service)
    assert status != 0 and "the load failed, exit status 1: ZeroDivisionError" in err
    status, _, err = compare(
        *words, "--load", load, "--", sys.executable, "-c", "raise SystemExit(3)"
    )
    assert status == 3 and "the service ended before it was ready: exit status 3" in err


@pytest.mark.parametrize(
    ("words", "flags", "program"),
    [
        (["a.py", "-m"], [], ["a.py", "-m"]),
        (["-X", "dev", "-Wd", "-m", "m", "x"], ["-X", "dev", "-Wd"], ["-m", "m", "x"]),
        (["-Im", "m"], ["-I"], ["-m", "m"]),
        (["-mm", "x"], [], ["-m", "m", "x"]),
        (["-ucprint()"], ["-u"], ["-c", "print()"]),
        (["-c", "import x\n-m"], [], ["-c", "import x\n-m"]),
        (["-W", "error", "-"], ["-W", "error"], ["-"]),
        (["--check-hash-based-pycs", "always", "d"], ["--check-hash-based-pycs", "always"], ["d"]),
    ],
)  # fmt: skip
def test_a_command_is_taken_apart(words, flags, program):
    assert _configs.split(words) == (flags, program)


# --- what is said of it ----------------------------------------------------------------


def runs(seconds, peak, end):
    found = []
    for one in zip(seconds, peak, end):
        run = _measure.Run()
        run.seconds, run.peak, run.end = one[0], one[1] << 20, one[2] << 20
        found.append(run)
    return found


STOCK = runs([1.0, 1.01, 0.99, 1.0, 1.02], [100, 101, 100, 99, 100], [80, 81, 80, 80, 79])
SAME = runs([1.01, 1.0, 1.0, 0.99, 1.02], [101, 100, 100, 99, 101], [80, 80, 81, 79, 80])
SMALL = runs([1.0, 1.0, 1.0, 1.0, 1.0], [100, 100, 100, 100, 100], [30, 31, 30, 29, 30])
SLOW = runs([1.3, 1.3, 1.2, 1.3, 1.3], [90, 90, 90, 90, 90], [20, 20, 20, 20, 20])
FITFUL = runs([1.0, 1.0, 1.0, 1.0, 1.0], [100, 100, 100, 100, 100], [30, 90, 30, 95, 30])


def test_none_is_recommended_where_nothing_helps():
    verdict = _verdict.judge(STOCK, {"glibc": SAME})
    assert verdict["choice"] is None and verdict["sure"] == "sure"
    assert verdict["others"] == {"glibc": "no difference that counts"}
    assert _verdict.judge(STOCK, {})["choice"] is None
    assert _verdict.judge(STOCK[:2], {"glibc": SAME[:2]})["sure"] == "not very sure"


def test_one_is_recommended_and_how_sure():
    verdict = _verdict.judge(STOCK, {"glibc": SAME, "full": SMALL})
    assert (verdict["choice"], verdict["sure"]) == ("full", "sure")
    text = "RSS at the end -62 %, better in 5 of 5 rounds, worst run better than the best of stock"
    assert verdict["because"] == [text]
    assert _verdict.judge(STOCK[:3], {"full": SMALL[:3]})["sure"].startswith(
        "fairly sure: by chance in 1 of 8"
    )
    assert _verdict.judge(STOCK[:1], {"full": SMALL[:1]})["sure"].startswith("a hint only")


def test_a_gain_that_costs_is_ruled_out_unless_accepted():
    verdict = _verdict.judge(STOCK, {"full": SLOW})
    assert verdict["choice"] is None and "time +29 %" in verdict["others"]["full"]
    assert _verdict.judge(STOCK, {"full": SLOW}, slower=0.4)["choice"] == "full"


def test_the_simpler_of_two_that_are_as_good():
    verdict = _verdict.judge(STOCK, {"glibc": SMALL, "full": SMALL})
    assert verdict["choice"] == "glibc" and verdict["others"]["full"].startswith("as good")


def test_gains_that_come_and_go_are_none():
    assert _verdict.judge(STOCK, {"full": FITFUL})["choice"] is None
    tiny = runs([1.0] * 5, [1] * 5, [1] * 5)
    assert _verdict.judge(tiny, {"full": runs([1.0] * 5, [1] * 5, [0] * 5)})["choice"] == "full"
    for one in (less := runs([1.0] * 5, [1] * 5, [1] * 5)):
        one.end -= 200_000
    assert _verdict.judge(tiny, {"full": less})["choice"] is None


def test_a_noisy_machine_is_told():
    noisy = runs([1.0, 1.3, 0.9, 1.0, 1.2], [100] * 5, [80] * 5)
    verdict = _verdict.judge(noisy, {"glibc": noisy})
    assert verdict["sure"] == "not very sure"
    assert "stock's own time differs by 40% between runs" in verdict["because"]
