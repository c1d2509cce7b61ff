"""A C compiler for one architecture and one old glibc: zig's clang, as CC.

    CC="python wheels/cross_cc.py x86_64-linux-gnu.2.17"

The C library's version is part of the target, so what links here runs on every
system that has at least that version, whatever the building machine has.
"""

import os
import sys


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
    # zig keeps objects by command line and by the absolute paths of what they included
    # when first made: the same relative command in another folder would get this one's.
    here = f"-ffile-prefix-map={os.getcwd()}=."
    os.execv(zig, [zig, "cc", "-target", target, here, *arguments])


main()
