"""Wires jemalloc_build into setuptools; the building itself is there."""

import os
import sys

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import fetch_source
from jemalloc_build import BuildError, recipe, stage
from jemalloc_build.options import Options
from jemalloc_build.source import prepare

# These need the library; an sdist and plain questions do not.
BUILDING = {"bdist_wheel", "dist_info", "editable_wheel", "build", "build_py", "install", "develop"}


def load():
    """(options, source or None, version); the source is fetched if need be."""
    options = Options()
    if not BUILDING.intersection(sys.argv):
        return options, None, fetch_source.VERSIONS[0]
    if options.library:
        return options, None, stage.prebuilt_version(options)
    source = prepare(build_dir(options), os.path.join(HERE, "source"))
    return options, source, source.version


def build_dir(options):
    return os.path.abspath(options.build_dir or os.path.join(HERE, "build", "jemalloc"))


try:
    OPTIONS, SOURCE, VERSION = load()
except BuildError as error:
    sys.exit(f"jemalloc: error: {error}")


class BuildPy(build_py):
    """The Python files, and the libraries beside them."""

    def run(self):
        super().run()
        package = os.path.join("src" if self.editable_mode else self.build_lib, "jemalloc_sys")
        try:
            if OPTIONS.library:
                stage.write_prebuilt(package, OPTIONS)
            else:
                OPTIONS.find_compiler()
                stage.write(
                    package, OPTIONS, SOURCE, recipe.build(OPTIONS, SOURCE, build_dir(OPTIONS))
                )
        except BuildError as error:
            sys.exit(f"jemalloc: error: {error}")


class BinaryDistribution(Distribution):
    """Its files go where a platform's files go."""

    def has_ext_modules(self):
        return True


class BdistWheel(bdist_wheel):
    """py3-none-<platform>: native code, but none that knows Python."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]

    # The one step that every frontend's way of building comes by: pip makes the
    # metadata beforehand and passes egg2dist by.
    def write_wheelfile(self, wheelfile_base, *arguments, **more):
        super().write_wheelfile(wheelfile_base, *arguments, **more)
        package = os.path.join(self.bdist_dir, "jemalloc_sys")
        if os.path.isdir(package):  # else only the metadata is asked for
            stage.write_sbom(package, wheelfile_base)


setup(
    version=stage.distribution_version(VERSION),
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildPy, "bdist_wheel": BdistWheel},
)
