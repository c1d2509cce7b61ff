"""What is in the package, and where it says it is."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys

import jemalloc_sys
import pytest


@pytest.fixture
def tool(clean):
    """Run ``python -m jemalloc_sys``: status, output, messages."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "jemalloc_sys"] + list(arguments),
            env=clean(),
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.strip(), done.stderr

    return run


@pytest.fixture
def pkg_config(clean):
    """The flags that pkg-config finds in a folder."""

    def run(folder):
        out = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "jemalloc-sys"],
            env=clean({"PKG_CONFIG_PATH": folder}),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return out.stdout.split()

    return run


@pytest.mark.parametrize("kind", ["private", "boot", "preload", "static"])
def test_library_exists(kind, tool):
    assert os.path.isfile(jemalloc_sys.get_library(kind))
    assert tool("--library", kind)[:2] == (0, jemalloc_sys.get_library(kind))


def test_unknown_library_names_the_known_ones(tool):
    with pytest.raises(ValueError, match="private, boot, preload, static"):
        jemalloc_sys.get_library("other")
    status, _, message = tool("--library", "other")
    assert status == 2 and "preload" in message


def test_headers_and_licence_exist():
    for name in ("jemalloc/jemalloc.h", "jemalloc_sys.h"):
        assert os.path.isfile(os.path.join(jemalloc_sys.get_include_dir(), name))
    package = os.path.dirname(jemalloc_sys.__file__)
    with open(os.path.join(package, "COPYING.jemalloc")) as file:
        assert "Jason Evans" in file.read()
    with open(os.path.join(package, "py.typed")):
        pass


def test_versions_agree(tool):
    info = jemalloc_sys.build_info()
    assert info["version"] == jemalloc_sys.__version__
    assert jemalloc_sys.__version__.startswith(info["jemalloc"].split("-")[0] + ".")
    assert json.loads(tool("--json")[1]) == info


def test_bill_of_materials_names_jemalloc_and_its_checksum(tool):
    info = jemalloc_sys.build_info()
    files = importlib.metadata.files("jemalloc-sys")
    (path,) = (f for f in files if f.parts[-2:] == ("sboms", "jemalloc.cdx.json"))
    (jemalloc,) = json.loads(path.read_text())["components"]
    assert jemalloc["version"] == info["jemalloc"].split("-")[0]
    assert jemalloc["hashes"] == [{"alg": "SHA-256", "content": info["source_sha256"]}]
    said = tool()[1]
    assert info["jemalloc"] in said
    assert info["source_sha256"] in said


def test_facts_name_no_path():
    text = json.dumps(jemalloc_sys.build_info())
    assert not re.search(r'[" =]/\w', text), text


def test_import_is_light():
    code = "import sys; before = set(sys.modules); import jemalloc_sys; print(sorted(set(sys.modules) - before))"
    out = subprocess.run(
        [sys.executable, "-I", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "['jemalloc_sys']"


def test_entry_points():
    from importlib.metadata import distribution

    points = {(e.group, e.name): e.value for e in distribution("jemalloc-sys").entry_points}
    assert points == {
        ("pkg_config", "jemalloc-sys"): "jemalloc_sys.lib.pkgconfig",
        ("cmake.prefix", "jemalloc-sys"): "jemalloc_sys",
        ("pyinstaller40", "hook-dirs"): "jemalloc_sys._pyinstaller:get_hook_dirs",
    }


def test_wheel_is_for_any_python_and_carries_both_licences():
    from importlib.metadata import distribution

    wheel = distribution("jemalloc-sys").read_text("WHEEL")
    assert re.search(r"(?m)^Tag: py3-none-(?!any)", wheel), wheel
    names = [str(f) for f in distribution("jemalloc-sys").files]
    for name in ("licenses/LICENSE", "licenses/LICENSE.jemalloc"):
        assert any(n.endswith(name) for n in names)


@pytest.mark.parametrize("kind, pattern", [("private", "je_"), ("boot", "je_boot_")])
def test_exports_only_our_prefix(kind, pattern):
    out = subprocess.run(
        ["nm", "-D", "--defined-only", jemalloc_sys.get_library(kind)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    names = [line.split()[-1] for line in out.splitlines()]
    assert names and all(name.startswith(pattern) for name in names), names


def test_private_library_maps_only_through_the_range():
    out = subprocess.run(
        ["nm", "-D", "--undefined-only", jemalloc_sys.get_library()],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    names = {line.split()[-1].split("@")[0] for line in out.splitlines()}
    assert "mmap" in names
    assert not names & {"mmap64", "mremap", "sbrk", "brk", "shmat"}


def test_dependencies_are_found_beside_the_library():
    out = subprocess.run(
        ["readelf", "-dW", jemalloc_sys.get_library()],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert "(NEEDED)" in out and "[libjemalloc_boot.so]" in out
    assert "[$ORIGIN]" in out and "(RUNPATH)" in out and "NODELETE" in out
    assert "stdc++" not in out


PROGRAM = """\
#include <jemalloc/jemalloc.h>
#include <stdio.h>
int main(void) {
	void *p = je_malloc(100);
	const char *version;
	size_t size = sizeof version;
	if (p == NULL || je_mallctl("version", &version, &size, NULL, 0) != 0) return 1;
	je_free(p);
	puts(version);
	return 0;
}
"""


def test_program_through_pkg_config(compiled, pkg_config):
    flags = pkg_config(os.path.join(jemalloc_sys.get_lib_dir(), "pkgconfig"))
    out = subprocess.run([compiled(PROGRAM, *flags)], stdout=subprocess.PIPE, text=True, check=True)
    assert out.stdout.strip() == jemalloc_sys.build_info()["jemalloc"]


def test_pkg_config_file_is_relocatable_and_its_text_works_anywhere(compiled, tmp_path, pkg_config):
    moved = tmp_path / "moved"
    shutil.copytree(os.path.dirname(jemalloc_sys.__file__), moved)
    assert f"-L{moved}/lib/pkgconfig/../../lib" in pkg_config(str(moved / "lib" / "pkgconfig"))
    (tmp_path / "jemalloc-sys.pc").write_text(jemalloc_sys.get_pkg_config())
    compiled(PROGRAM, *pkg_config(str(tmp_path)))


def test_program_through_the_module(compiled, tool):
    flags = tool("--cflags")[1].split() + tool("--libs")[1].split()
    subprocess.run([compiled(PROGRAM, *flags)], stdout=subprocess.PIPE, check=True)


def test_program_through_cmake(tmp_path):
    (tmp_path / "program.c").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(p C)\n"
        f"find_package(jemalloc-sys {jemalloc_sys.__version__} REQUIRED CONFIG)\nadd_executable(p program.c)\n"
        "target_link_libraries(p jemalloc-sys::static)\n"
    )
    prefix = os.path.dirname(jemalloc_sys.__file__)
    for command in (
        ["cmake", "-DCMAKE_PREFIX_PATH=" + prefix, "."],
        ["cmake", "--build", "."],
        ["./p"],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout


def test_static_archive_serves_a_library_that_is_dlopened(compiled, tmp_path, pkg_config):
    text = "#include <jemalloc/jemalloc.h>\nvoid *grab(void);\nvoid *grab(void) { return je_malloc(10); }\n"
    flags = pkg_config(os.path.join(jemalloc_sys.get_lib_dir(), "pkgconfig"))
    library = compiled(text, "-shared", "-fPIC", *flags)
    code = "import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).grab; f.restype = ctypes.c_void_p; assert f()"
    subprocess.run([sys.executable, "-c", code, library], check=True)


def test_loader_header(compiled, tool):
    compiled(
        """\
        #include <jemalloc_sys.h>
        _Static_assert(JE_SYS_ABI == 2 && JE_BOOT_CONF_SIZE == 2048, "abi");
        int main(void) { return sizeof je_boot_conf == JE_BOOT_CONF_SIZE ? 0 : 1; }
        """,
        *tool("--cflags")[1].split(),
    )


def test_preloaded(fresh):
    out = fresh(
        """
        import ctypes
        process = ctypes.CDLL(None)
        version, length = ctypes.c_char_p(), ctypes.c_size_t(8)
        assert process.mallctl(b"version", ctypes.byref(version), ctypes.byref(length), None, 0) == 0
        print(version.value.decode())
        """,
        env={"LD_PRELOAD": jemalloc_sys.get_library("preload")},
        prelude="",
    )
    assert out == jemalloc_sys.build_info()["jemalloc"]


def test_preloaded_and_private_together(fresh):
    fresh(
        "p = malloc(100); assert inside(p, 100); free(p)",
        env={"LD_PRELOAD": jemalloc_sys.get_library("preload")},
    )
