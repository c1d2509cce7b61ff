"""``import alloc.auto`` as an application's first import: `alloc.install()`, as it is
by default or as the deployer says (``ALLOC_INSTALL``, ``ALLOC_PRESET``).

For applications, never for libraries.  In a guest it does nothing; the result is
``alloc.installed()``.
"""

from ._installing import install

install()
