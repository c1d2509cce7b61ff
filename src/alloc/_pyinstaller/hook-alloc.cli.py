"""The modules of `alloc.cli`, which it loads by name."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("alloc.cli")
