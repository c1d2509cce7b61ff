"""The other commands, and what `enable` does to a Python's start."""

import json
import os
import re
import subprocess
import sys
import venv

import pytest
from defaults import MODE

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]


def alloc_command(*words, python=sys.executable, **env):
    full = {k: v for k, v in os.environ.items() if not k.startswith("ALLOC_")}
    done = subprocess.run(
        [python, "-m", "alloc", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**full, **env},
    )
    return done.returncode, done.stdout, done.stderr


def test_help_lists_the_commands():
    status, out, _ = alloc_command("--help")
    assert status == 0
    for name in ("disable", "enable", "info", "run"):
        assert f"\n  {name} " in out
        assert alloc_command(name, "--help")[1].count(f"python -m alloc {name}") == 1
    assert alloc_command()[0] == 2
    assert alloc_command("nonsense")[2].startswith("python -m alloc: no command 'nonsense'")
    assert alloc_command("_startup")[0] == 2


@pytest.mark.needs_glibc
def test_info_for_people_and_as_json():
    status, out, _ = alloc_command("info")
    assert status == 0 and "allocator  jemalloc" in out and "BAD" not in out
    assert "evidence   Py_BytesMain" in out and re.search(r"jemalloc +5\.", out)
    assert "option     dirty_decay_ms=500  (build)" in out and "tcache=True" not in out
    assert "option     tcache=True  (default)" in alloc_command("info", "--options")[1]
    status, out, _ = alloc_command("info", "--json", ALLOC_DEFAULT="system")
    found = json.loads(out)
    assert status == 0 and found["ok"] and found["decision"]["allocator"] == "system"
    assert found["environment"] == {"ALLOC_DEFAULT": "system"}
    assert found["system"]["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert found["system"]["huge_pages"]["enabled"] in ("always", "madvise", "never")
    assert found["backends"]["jemalloc"]["serves"] and found["backends"]["system"]["libc"]


def test_info_tells_options_origin_and_what_was_rejected():
    conf = "narenas:3,dirty_decay_ms:nonsense"
    found = json.loads(alloc_command("info", "--json", JE_MALLOC_CONF=conf)[1])
    options = {option["name"]: option for option in found["options"]["private"]}
    assert options["narenas"]["value"] == 3 and options["narenas"]["origin"] == "environment"
    assert options["dirty_decay_ms"]["rejected"] and options["dirty_decay_ms"]["value"] == 500
    assert found["system"]["variables"]["JE_MALLOC_CONF"] == conf
    out = alloc_command("info", JE_MALLOC_CONF=conf)[1]
    assert re.search(r"rejected +dirty_decay_ms=500  \(environment\): nonsense was asked for", out)


def test_info_says_what_is_preloaded():
    import jemalloc_sys

    library = jemalloc_sys.get_library("preload")
    found = json.loads(alloc_command("info", "--json", LD_PRELOAD=f"{library}:/no/such.so")[1])
    here = {each["library"]: each["mapped"] for each in found["system"]["preloaded"]}
    assert here == {library: True, "/no/such.so": False}
    assert "preloaded" in found["options"]
    out = alloc_command("info", LD_PRELOAD="/no/such.so")[1]
    assert "preloaded  /no/such.so (warning: not in this process)" in out


def test_a_check_that_fails_is_the_status():
    code = (
        "import alloc, sys\n"
        "from alloc.cli import info\n"
        "bad = alloc.Verification((alloc.Check('a claim', False, 'it does not hold'),))\n"
        "alloc.verify = lambda: bad\n"
        "sys.exit(info.main(sys.argv[1:]))"
    )
    for words in ([], ["--json"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert done.returncode == 1 and "it does not hold" in done.stdout


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; sys.argv[1:] = ['info', '--options']; from alloc.cli import main; main()"
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writer, stderr=-1)
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err == b""


def test_the_console_script_is_there():
    path = os.path.join(os.path.dirname(sys.executable), "pyalloc")
    done = subprocess.run([path, "info", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["ok"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment that sees this one's packages."""
    where = tmp_path_factory.mktemp("environment")
    venv.create(where, symlinks=True)
    python = str(where / "bin" / "python")
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with open(os.path.join(purelib, "others.pth"), "w") as file:
        file.writelines(f"{path}\n" for path in sys.path if path.endswith(("site-packages", "src")))
    return python, purelib


ASK = "import sys; m = sys.modules.get('alloc'); print(m and m.installed().routed, 'numpy' in sys.modules)"


def ask(python, **env):
    done = subprocess.run(
        [python, "-c", ASK], capture_output=True, text=True, env={**os.environ, **env}, check=True
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.needs_pymalloc
@pytest.mark.needs_venv
def test_enable_and_disable(environment):
    python, purelib = environment
    assert ask(python) == "None False"
    status, out, _ = alloc_command("enable", python=python)
    assert status == 0 and "pyalloc-auto.pth" in out
    assert ask(python, ALLOC_INSTALL="hybrid") == "('raw', 'arenas') False"
    assert ask(python, ALLOC_INSTALL="full") == "('raw', 'mem', 'obj') False"
    assert ask(python, ALLOC_DISABLE="1") == "() False"
    assert ask(python, ALLOC_EMBEDDING="guest") == "() False"
    assert json.loads(alloc_command("info", "--json", python=python)[1])["enabled"]
    code = "import multiprocessing as m, alloc\nif __name__ == '__main__':\n"
    code += "    with m.get_context('spawn').Pool(1) as p: print(p.apply(alloc.installed).python)\n"
    program = os.path.join(purelib, "spawns.py")
    with open(program, "w") as file:
        file.write(code)
    out = subprocess.run([python, program], capture_output=True, text=True, check=True).stdout
    assert out == f"{MODE}\n"
    assert alloc_command("disable", python=python)[0] == 0
    assert alloc_command("disable", python=python)[1].startswith("was not enabled")
    assert ask(python) == "None False"


@pytest.mark.needs_venv
def test_python_starts_when_alloc_is_gone_or_broken(environment, tmp_path):
    python, purelib = environment
    alloc_command("enable", python=python)
    others = os.path.join(purelib, "others.pth")
    with open(others) as file:
        paths = file.read()
    try:
        os.unlink(others)
        env = {"PYTHONPATH": ""}
        assert ask(python, **env) == "None False"
        broken = tmp_path / "alloc"
        broken.mkdir()
        (broken / "__init__.py").write_text("raise RuntimeError('broken')")
        with open(others, "w") as file:
            file.write(f"{tmp_path}\n")
        done = subprocess.run(
            [python, "-c", "print('up')"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "up\n")
        assert done.stderr == "alloc: not started: RuntimeError('broken')\n"
    finally:
        with open(others, "w") as file:
            file.write(paths)
        alloc_command("disable", python=python)


@pytest.mark.needs_venv
def test_a_managed_or_read_only_environment_is_refused(environment):
    python, _ = environment
    code = """
import sys
from alloc.cli import _startup, enable
_startup.managed = lambda: 'it is managed by the system'
print(enable.main([]))
_startup.managed = lambda: None
_startup.path = lambda: '/proc/nothing/pyalloc-auto.pth'
print(enable.main([]))
"""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n1\n"
    assert "refused: it is managed by the system" in done.stderr
    assert "No such file or directory" in done.stderr


@pytest.mark.needs_venv
@pytest.mark.needs_cc
def test_a_host_in_an_enabled_environment_is_left_alone(environment, tmp_path):
    import sysconfig

    python, _ = environment
    source, program = tmp_path / "host.c", tmp_path / "host"
    source.write_text(
        "#include <Python.h>\nint main(int argc, char **argv) { PyConfig c; PyStatus s;\n"
        "PyConfig_InitPythonConfig(&c); PyConfig_SetBytesString(&c, &c.program_name, argv[1]);\n"
        "s = Py_InitializeFromConfig(&c); if (PyStatus_Exception(s)) return 9;\n"
        "return PyRun_SimpleString(argv[2]) || Py_FinalizeEx(); }\n"
    )
    library = sysconfig.get_config_var("LIBDIR")
    subprocess.run(
        ["cc", source, "-o", program, f"-I{sysconfig.get_paths()['include']}", f"-L{library}",
         f"-lpython{sysconfig.get_config_var('LDVERSION')}", f"-Wl,-rpath,{library}"],
        check=True,
    )  # fmt: skip
    alloc_command("enable", python=python)
    try:
        done = subprocess.run([program, python, ASK], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("() False\n", "")
    finally:
        alloc_command("disable", python=python)
