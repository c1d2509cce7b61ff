"""``python -m jemalloc_sys``: the locator for shells and makefiles."""

import argparse
import json

import jemalloc_sys


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jemalloc_sys", description="Where this jemalloc is."
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--json", action="store_true", help="how it was built, as JSON")
    choice.add_argument("--cflags", action="store_true", help="compiler flags")
    choice.add_argument("--libs", action="store_true", help="linker flags for the static archive")
    choice.add_argument(
        "--library", metavar="KIND", help="path of one: private, boot, preload, static"
    )
    options = parser.parse_args()
    if options.json:
        print(json.dumps(jemalloc_sys.build_info(), indent=2, sort_keys=True))
    elif options.cflags:
        print("-I" + jemalloc_sys.get_include_dir())
    elif options.libs:
        print(f"-L{jemalloc_sys.get_lib_dir()} -ljemalloc_pic -lpthread -lm -ldl")
    elif options.library:
        try:
            print(jemalloc_sys.get_library(options.library))
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
    else:
        info = jemalloc_sys.build_info()
        print("jemalloc-sys {} (jemalloc {})".format(jemalloc_sys.__version__, info["jemalloc"]))
        print("source   sha256 {}".format(info.get("source_sha256", "not known: prebuilt")))
        print("include  " + jemalloc_sys.get_include_dir())
        for kind in ("private", "boot", "preload", "static"):
            try:
                print("%-8s %s" % (kind, jemalloc_sys.get_library(kind)))
            except FileNotFoundError:
                print("%-8s not in this build" % kind)


if __name__ == "__main__":
    main()
