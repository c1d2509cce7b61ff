"""Regions: `Bump`, whose blocks go all at once, and `Pool`, whose blocks have one size.

For C they are ``alloc/bump.h`` and ``alloc/pool.h``, for Cython ``alloc.regions``.
"""

from __future__ import annotations

from ._select import implementation

__all__ = ["Bump", "Pool"]

TYPE_CHECKING = False
if TYPE_CHECKING or implementation == "cython":
    from ._pool import Pool
    from ._regions import Bump
else:
    from ._regions_pure import Bump, Pool
