"""A C module and a Cython module; the rest is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import alloc

PLACE = [alloc.get_include()]

setup(
    ext_modules=cythonize(
        [
            Extension("alloc_example.tally", ["src/alloc_example/tally.c"], include_dirs=PLACE),
            Extension("alloc_example.smooth", ["src/alloc_example/smooth.pyx"], include_dirs=PLACE),
        ]
    )
)
