"""A C compiler for one architecture and one old glibc: zig's clang, as CC.

    CC="python wheels/cross_cc.py x86_64-linux-gnu.2.17"
    CC="python wheels/cross_cc.py x86_64-windows-gnu"

The C library's version is part of the target, so what links here runs on every
system that has at least that version, whatever the building machine has.
"""

import os
import sys
import tempfile


def main():
    import ziglang

    zig = os.path.join(os.path.dirname(ziglang.__file__), "zig")
    target, *arguments = sys.argv[1:]
    if arguments[:1] == ["ar"]:
        os.execv(zig, [zig, *arguments])
    if "-dumpmachine" in arguments:  # handed on to clang, which knows no version
        target = target.split(".")[0]
    if "-" in arguments and "-x" not in arguments:  # it takes standard input for no C
        arguments[:0] = ["-x", "c"]
    if "windows" in target and "-shared" in arguments:
        # The import library that comes with it would be beside it, and in the wheel.
        cache = os.environ.get("ZIG_LOCAL_CACHE_DIR") or tempfile.gettempdir()
        arguments.append(f"-Wl,--out-implib={os.path.join(cache, 'unused.lib')}")
    # zig keeps objects by command line and by the absolute paths of what they included
    # when first made: the same relative command in another folder would get this one's.
    here = f"-ffile-prefix-map={os.getcwd()}=."
    os.execv(zig, [zig, "cc", "-target", target, here, *arguments])


main()
