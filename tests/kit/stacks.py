"""Every adaptor, over any upstream, and what it promises less of."""

import contextlib
import os
import tempfile

import alloc
from alloc import adaptors
from alloc.testing import Capabilities

WHOLE = Capabilities()
BOUNDED = Capabilities(bounded=True)


def logged(upstream, format):
    handle, path = tempfile.mkstemp(prefix="alloc-log-")
    os.close(handle)
    log = adaptors.Logging(upstream, path, format=format)
    with contextlib.suppress(PermissionError):  # Windows: not while it is open
        os.unlink(path)
    return log


# Those over native upstreams only.
NATIVE = {
    "sampled": (lambda make: adaptors.SampledGuard(make(), every=3, slots=16), WHOLE),
    "statistics of sampled": (
        lambda make: adaptors.Statistics(adaptors.SampledGuard(make(), every=1, slots=8)),
        WHOLE,
    ),
    "statistics of a pool": (
        lambda make: adaptors.Statistics(alloc.Pool(512, align=64, upstream=make())),
        Capabilities(bounded=True, max_size=512, max_align=64),
    ),
}
# name: (what makes it of a maker of upstreams, its capabilities)
ADAPTORS = {
    "forwarding": (lambda make: adaptors.Forwarding(make()), WHOLE),
    "statistics": (lambda make: adaptors.Statistics(make()), WHOLE),
    "tracking": (lambda make: adaptors.Tracking(make(), depth=3), WHOLE),
    "limiting": (lambda make: adaptors.Limiting(make(), 1 << 19), BOUNDED),
    "logging": (lambda make: logged(make(), "binary"), WHOLE),
    "failing": (lambda make: adaptors.Failing(make(), every=5), BOUNDED),
    "callback": (
        lambda make: adaptors.FailureCallback(
            adaptors.Failing(make(), every=3), lambda layout: layout.size < 1 << 40
        ),
        WHOLE,
    ),
    "aligned": (lambda make: adaptors.Aligned(make(), 64), WHOLE),
    "locked": (lambda make: adaptors.Locked(make()), WHOLE),
    "fallback": (lambda make: adaptors.Fallback(adaptors.Failing(make(), every=2), make()), WHOLE),
    "binning": (lambda make: adaptors.Binning({64: make(), 4096: make()}, make()), WHOLE),
    "a stack": (
        lambda make: adaptors.Statistics(
            adaptors.Limiting(adaptors.Aligned(adaptors.Tracking(make()), 32), 1 << 22)
        ),
        BOUNDED,
    ),
}

POOLED = Capabilities(bounded=True, max_size=512, max_align=64)
ADAPTORS["bump"] = (lambda make: alloc.Bump(upstream=make()), Capabilities(recycles=False))
ADAPTORS["pool"] = (lambda make: alloc.Pool(512, align=64, upstream=make()), POOLED)
ADAPTORS["a pool of small ones"] = (
    lambda make: alloc.Pool(16, align=8, upstream=make()),
    Capabilities(bounded=True, max_size=16, max_align=8),
)
ADAPTORS["over a bump"] = (
    lambda make: adaptors.Statistics(alloc.Bump(chunk=1 << 12, upstream=make())),
    Capabilities(recycles=False),
)
ADAPTORS["guard"] = (
    lambda make: adaptors.Guard(make(), depth=2, quarantine=1 << 20),
    Capabilities(recycles=False),
)
ADAPTORS["guard over guard"] = (
    lambda make: adaptors.Guard(adaptors.Guard(make(), quarantine=0), policy="collect", depth=0),
    Capabilities(recycles=False),
)
