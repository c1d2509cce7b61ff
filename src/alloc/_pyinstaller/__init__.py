"""Where PyInstaller finds its hooks for this package (entry point ``pyinstaller40``).

Nothing else imports this; the hooks run inside PyInstaller only.
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    return [os.path.dirname(os.path.abspath(__file__))]
