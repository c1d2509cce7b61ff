"""What an application needs of `alloc`: PyInstaller cannot see what is loaded by name.

Compiled modules import others, and public names load theirs on first use.  `cli` and
`testing` have hooks of their own: they come along only where an application names them,
or it would carry rich, hypothesis and pytest.
"""

from PyInstaller.utils.hooks import collect_submodules, copy_metadata

APART = ("alloc.cli", "alloc.testing", "alloc.__main__", "alloc._pyinstaller")

hiddenimports = collect_submodules("alloc", filter=lambda name: not name.startswith(APART))
datas = copy_metadata("pyalloc")  # alloc.__version__
