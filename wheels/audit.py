"""Look into what `build.py` made: nothing missing, nothing extra, nothing of this machine.

    python wheels/audit.py [dist]

One line per finding, exit status 1 if there is any.  Expected contents come from
git, so a new file of the package that does not reach the wheel is a finding.
"""

import base64
import csv
import glob
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile

import pefile
import windows
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
JEMALLOC = "wheels/jemalloc-sys/"

# Bytes of the packed file.  A wheel that grows past it wants a reason.
# Windows: what a C library's start-up needs is in each module.
BUDGET = {"pyalloc": 900_000, "Windows": 1_100_000, "jemalloc": 1_600_000, "sdist": 1_400_000}
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
SYSTEM = re.compile(r"lib(c|m|dl|pthread|rt)\.so\.\d+|ld-linux-[\w-]+\.so\.\d")
WINDOWS = re.compile(r"KERNEL32\.dll|api-ms-win-crt-[a-z]+-l1-1-0\.dll", re.IGNORECASE)
# What each library is for: the names it must have, and one it must not.
EXPORTS = {
    "libjemalloc.so.2": ({"malloc", "free", "realloc", "calloc", "mallctl"}, "je_malloc"),
    "libjemalloc_private.so": ({"je_malloc", "je_mallctl", "je_sys_abi", "je_sys_slots"}, "malloc"),
    "libjemalloc_boot.so": ({"je_boot_conf", "je_boot_owner"}, "malloc"),
}
LIBRARIES = {
    "libjemalloc_private.so": {"libjemalloc_boot.so"},  # name: what it needs beside the system
    "libjemalloc_boot.so": set(),
    "libjemalloc.so.2": set(),
}


def tracked(*paths):
    """What git has or would take under these paths."""
    command = ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", *paths]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return {p for p in listed if p and os.path.exists(os.path.join(ROOT, p))}


def machine_paths():
    """Beginnings of paths that name this machine, as bytes."""
    import ziglang

    found = {ROOT, os.path.expanduser("~"), sys.prefix, sys.base_prefix, "/tmp", "/home"}
    found.add(os.path.dirname(ziglang.__file__))
    return sorted({p.encode() + b"/" for p in found if len(p) > 1})


def expected(name):
    """The exact members of a wheel."""
    parts = name[: -len(".whl")].split("-")
    info = f"{parts[0]}-{parts[1]}.dist-info/"
    members = {"METADATA", "WHEEL", "RECORD", "licenses/LICENSE", "entry_points.txt"}
    members.add("top_level.txt")
    if parts[0] == "pyalloc":
        files = {p[len("src/") :] for p in tracked("src")}
        if parts[2] != "py3":
            version = parts[2][len("cp") :]
            modules = {p[: -len(".pyx")] for p in files if p.endswith(".pyx")}
            if parts[4] == windows.TAG:
                modules -= {"alloc/_route"}  # install() is for Linux
                suffix = f".cp{version}-{windows.TAG}.pyd"
            else:
                arch = next(a for a in MACHINES if parts[4].endswith(a))
                suffix = f".cpython-{version}-{arch}-linux-gnu.so"
            files |= {module + suffix for module in modules}
    else:
        members |= {"licenses/LICENSE.jemalloc", "sboms/jemalloc.cdx.json"}
        files = {p[len(JEMALLOC + "src/") :] for p in tracked(JEMALLOC + "src")}
        made = ["COPYING.jemalloc", "_version.py", "build_info.json", "include/jemalloc_sys.h"]
        made += ["include/jemalloc/jemalloc.h", "lib/pkgconfig/jemalloc-sys.pc"]
        made += ["lib/" + n for n in (*LIBRARIES, "libjemalloc_pic.a")]
        made += [f"lib/cmake/jemalloc-sys/jemalloc-sys-config{v}.cmake" for v in ("", "-version")]
        files |= {"jemalloc_sys/" + m for m in made}
    return files | {info + m for m in members}


def shared_object(name, content, arch):
    """Findings in one ELF file."""
    elf = ELFFile(io.BytesIO(content))
    if elf["e_machine"] != MACHINES[arch]:
        yield f"is for {elf['e_machine']}"
    sections = {s.name for s in elf.iter_sections()}
    for section in sorted(sections):
        if section == ".symtab" or section.startswith(".debug"):
            yield f"is not stripped ({section})"
    dynamic = next(s for s in elf.iter_sections() if isinstance(s, DynamicSection))
    base = os.path.basename(name)
    for tag in dynamic.iter_tags():
        needed = tag.needed if tag.entry.d_tag == "DT_NEEDED" else None
        if needed and not SYSTEM.fullmatch(needed) and needed not in LIBRARIES.get(base, ()):
            yield f"needs {needed}"
        if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
            path = getattr(tag, "rpath", None) or getattr(tag, "runpath", None)
            if path != "$ORIGIN":
                yield f"has the run path {path}"
    stack = [s for s in elf.iter_segments() if s["p_type"] == "PT_GNU_STACK"]
    if not stack or stack[0]["p_flags"] & 1:
        yield "asks for an executable stack"
    symbols = elf.get_section_by_name(".dynsym").iter_symbols()
    out = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s.name}
    if base in LIBRARIES:
        wanted, foreign = EXPORTS[base]
        if wanted - out:
            yield f"does not export {sorted(wanted - out)}"
        if foreign in out:
            yield f"exports {foreign}"
    else:
        wanted = "PyInit_" + base.split(".")[0]
        if out - {wanted, "_init", "_fini"} or wanted not in out:
            yield f"exports {sorted(out)[:8]}"


def windows_module(name, content):
    """Findings in one PE file."""
    pe = pefile.PE(data=content)
    base, tag, _ = os.path.basename(name).split(".")
    if pe.FILE_HEADER.Machine != pefile.MACHINE_TYPE["IMAGE_FILE_MACHINE_AMD64"]:
        yield f"is for machine {pe.FILE_HEADER.Machine:#x}"
    sections = [s.Name.rstrip(b"\0").decode() for s in pe.sections]
    debug = [s for s in sections if s.startswith((".debug", "/"))]
    if debug or pe.FILE_HEADER.NumberOfSymbols or hasattr(pe, "DIRECTORY_ENTRY_DEBUG"):
        yield f"is not stripped ({', '.join(debug) or 'symbols'})"
    flags = pe.OPTIONAL_HEADER
    if not (
        flags.IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE and flags.IMAGE_DLLCHARACTERISTICS_NX_COMPAT
    ):
        yield "may not be moved in memory, or asks for an executable stack"
    python = f"python{tag.split('-')[0][len('cp') :]}.dll"
    for library in (entry.dll.decode() for entry in pe.DIRECTORY_ENTRY_IMPORT):
        if library != python and not WINDOWS.fullmatch(library):
            yield f"needs {library}"
    out = [symbol.name.decode() for symbol in pe.DIRECTORY_ENTRY_EXPORT.symbols]
    if out != ["PyInit_" + base]:
        yield f"exports {sorted(out)[:8]}"


def record(archive, members):
    """Findings in RECORD: a wrong or missing checksum."""
    (path,) = (m for m in members if m.endswith(".dist-info/RECORD"))
    listed = {row[0]: row[1] for row in csv.reader(archive.read(path).decode().splitlines())}
    for member in sorted(members - {path}):
        digest = hashlib.sha256(archive.read(member)).digest()
        said = "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if listed.get(member) != said:
            yield f"RECORD is wrong about {member}"
    for name in sorted(set(listed) - members):
        yield f"RECORD lists {name}, which is not there"


def wheel(path):
    name = os.path.basename(path)
    arch = next((a for a in MACHINES if a + ".whl" in name), None)
    with zipfile.ZipFile(path) as archive:
        members = {n for n in archive.namelist() if not n.endswith("/")}
        wanted = expected(name)
        yield from (f"lacks {n}" for n in sorted(wanted - members))
        yield from (f"has {n}, which nobody asked for" for n in sorted(members - wanted))
        yield from record(archive, members)
        for member in sorted(members):
            content = archive.read(member)
            for prefix in machine_paths():
                if prefix in content:
                    yield f"{member} names a path of this machine: {prefix.decode()}"
            if content[:4] == b"\x7fELF":
                for finding in shared_object(member, content, arch):
                    yield f"{member} {finding}"
            if content[:2] == b"MZ":
                for finding in windows_module(member, content):
                    yield f"{member} {finding}"
        metadata = archive.read(next(m for m in members if m.endswith("/METADATA"))).decode()
        if not re.search(r"(?m)^License-Expression: ", metadata):
            yield "METADATA has no licence expression"
    size = os.path.getsize(path)
    budget = BUDGET["Windows" if windows.TAG in name else name.split("_")[0].split("-")[0]]
    if size > budget:
        yield f"has {size} bytes, over the budget of {budget}"
    if arch:
        command = [sys.executable, "-m", "auditwheel", "show", path]
        said = " ".join(subprocess.run(command, capture_output=True, text=True).stdout.split())
        if f'"manylinux_2_17_{arch}"' not in said:
            yield f"auditwheel: {said}"


def sdist(path):
    name = os.path.basename(path)
    top = name[: -len(".tar.gz")] + "/"
    if name.startswith("pyalloc"):
        wanted = tracked("src", "tests", "examples", "pyproject.toml", "setup.py", "LICENSE")
        wanted |= {"README.md", "MANIFEST.in", "wheels/fast.txt"}
    else:
        base = tracked(JEMALLOC) - {JEMALLOC + ".gitignore"}
        wanted = {p[len(JEMALLOC) :] for p in base}
    made = re.compile(
        r"PKG-INFO|setup\.cfg|src/\w+\.egg-info/\w+[\w.-]+|source/jemalloc-[\d.]+\.tar\.\w+"
    )
    with tarfile.open(path) as archive:
        members = {m.name[len(top) :]: m for m in archive.getmembers() if m.isfile()}
        found = set(members)
        yield from (f"lacks {n}" for n in sorted(wanted - found))
        for extra in sorted(found - wanted):
            if not made.fullmatch(extra):
                yield f"has {extra}, which nobody asked for"
        if name.startswith("jemalloc") and not any(n.startswith("source/") for n in found):
            yield "lacks jemalloc's source"
    if os.path.getsize(path) > BUDGET["sdist"]:
        yield f"has {os.path.getsize(path)} bytes, over the budget of {BUDGET['sdist']}"


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "dist")
    files = sorted(glob.glob(os.path.join(folder, "*")))
    if not files:
        sys.exit(f"error: nothing in {folder}")
    count = 0
    for path in files:
        findings = list(wheel(path) if path.endswith(".whl") else sdist(path))
        count += len(findings)
        verdict = "BAD" if findings else "ok "
        print(f"{verdict}  {os.path.getsize(path):>9} {os.path.basename(path)}")
        for finding in findings:
            print(f"     {finding}")
    twine = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files])
    if count or twine.returncode:
        sys.exit(f"{count} findings" + (", and twine objects" if twine.returncode else ""))


if __name__ == "__main__":
    main()
