"""Limits of time that only end what hangs, longer where everything is slower.

ALLOC_TEST_PATIENCE is the factor: an emulator's is 10 (wheels/tests/in_tree.py).
"""

import os
import subprocess

PATIENCE = float(os.environ.get("ALLOC_TEST_PATIENCE", "1"))


def seconds(limit):
    return limit * PATIENCE


def stretch():
    """Do so with every ``timeout`` of `subprocess.run` and `communicate`."""
    real = subprocess.Popen.communicate

    def communicate(self, input=None, timeout=None):
        return real(self, input, timeout and seconds(timeout))

    subprocess.Popen.communicate = communicate
