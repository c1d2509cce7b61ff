"""Where PyInstaller finds its hook for this package (entry point ``pyinstaller40``)."""

import os


def get_hook_dirs() -> "list[str]":
    return [os.path.dirname(os.path.abspath(__file__))]
