"""Write native/warm.ld: the functions that a program's memory goes through.

    STRIP=true make build
    python bench/warm.py

Needs valgrind, pyalloc with `install()`, and a jemalloc_sys whose library was not stripped.
Names that are in the file stay: compilers inline different ones.  `--anew` forgets them.
"""

import os
import re
import subprocess
import sys
import tempfile

import jemalloc_sys

FILE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "native", "warm.ld"
)
HEAD = """\
/* Functions that a program's memory goes through, its start included, in one place: the
 * kernel maps 64 KiB around a page that is touched, and so the rest of the library was
 * resident as well.  Added to the linker's own script.  Written by bench/warm.py;
 * names that are not there are ignored. */
SECTIONS {
\t.text.warm : {
"""
# Marked cold, and yet every start comes through them.
MARKED = ("je_malloc_snprintf", "je_malloc_vsnprintf", "tsd_get_first")
# native/, constructors, and what compilers and the C library link in.
TAIL = """\
\t\t*slots.o(.text.*) *large.o(.text.*) *slabs.o(.text.*) *domains.o(.text.*) *flush.o(.text.*)
\t\t*prefault.o(.text.*) *fill.o(.text.*) *leaves.o(.text.*) *crtbegin*.o(.text .text.*)
\t\t*(.text.je_sys_* .text.__wrap_* .text.startup .text.startup.*)
\t\t*libgcc.a:*(.text .text.*) *libc_nonshared.a:*(.text .text.*)
\t}
} INSERT BEFORE .text;
"""
PROGRAM = """
import os, threading, time
import alloc
alloc.install("hybrid")
alloc.installed()
def work():
    for i in range(60):
        small = [bytes(n) for n in range(100, 40000, 777)]
        large = [bytearray(n) for n in (100000, 600000, 3000000)]
        for each in large:
            each.extend(each)
            del each[len(each) // 4 :]
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if os.fork() == 0:
    kept = [bytes(n) for n in range(100, 40000, 777)]
    os._exit(0)
os.wait()
time.sleep(1.5)
alloc.trim()
"""


def executed():
    """Names of the private library's functions that PROGRAM ran."""
    names = set()
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.%p")
        subprocess.run(
            ["valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=" + out]
            + [sys.executable, "-c", PROGRAM],
            check=True,
        )
        for name in os.listdir(folder):
            said = subprocess.run(
                ["callgrind_annotate", "--threshold=100", os.path.join(folder, name)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            # Valgrind does not always say in which library it was.
            names.update(re.findall(r":(\w+)\S* \[(?:\?\?\?|.*/libjemalloc_private\.so)\]", said))
    listed = subprocess.run(
        ["nm", "--defined-only", jemalloc_sys.get_library("private")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return names & set(re.findall(r" [tT] (\w+)", listed))


def main():
    names = executed()
    if "je_arena_new" not in names:
        sys.exit("no names of functions: was the library stripped?")
    if "--anew" not in sys.argv and os.path.exists(FILE):
        with open(FILE, encoding="utf-8") as file:
            names.update(re.findall(r"\.text\.(\w+)\.\*", file.read()))
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(HEAD)
        for name in sorted(names):
            marked = f" .text.unlikely.{name}" if name in MARKED else ""
            file.write(f"\t\t*(.text.{name} .text.{name}.*{marked})\n")
        file.write(TAIL)
    print(f"{len(names)} functions")


if __name__ == "__main__":
    main()
