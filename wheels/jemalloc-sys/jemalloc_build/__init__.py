"""How the libraries of jemalloc-sys are built; setup.py only calls it.

options    what JEMALLOC_SYS_* and CC, CFLAGS ... ask for, validated
source     a source tree with a configure script, from fetch_source.py
autoconf   an autoconf, for sources that come without configure
recipe     configure, compile, link, and reuse of what is already built
stage      the package's files around the libraries
"""


class BuildError(Exception):
    """The build cannot go on; the text is for the person who builds."""


def say(message):
    import sys

    print("jemalloc: " + message, file=sys.stderr, flush=True)
