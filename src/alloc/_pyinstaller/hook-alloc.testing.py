"""The modules of `alloc.testing`, which it loads by name."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("alloc.testing")
