"""What a process sees of ``import alloc``: the decision, and what the import changed.

Imported or executed by every program, host and guest of these tests.  Needs
nothing but the standard library, and works where no extension module loads.
"""

import contextlib
import io
import json
import os
import signal
import sys
import time

sys.path[:0] = [path for path in os.environ.get("ALLOC_TEST_PATH", "").split(os.pathsep) if path]

try:
    # Without: CPython 3.12's own ctypes crashes in an interpreter initialized again.
    if os.environ.get("ALLOC_TEST_CTYPES") == "no":
        raise ImportError
    import ctypes
except ImportError:  # or a host that dlopened libpython with RTLD_LOCAL
    ctypes = None

STATUS = ("Threads", "Umask", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "Seccomp")
DOMAINS = ("raw", "mem", "object")


def _lines(path):
    try:
        with open(path, errors="replace") as file:
            return file.read().splitlines()
    except OSError:  # no /proc
        return []


def _entries(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _descriptors():
    """Open files.  ALLOC_TEST_BUSY: threads of the host's open and close sockets meanwhile."""
    found = {}
    for number in _entries("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that listed them
            continue
    busy = ("socket:", "pipe:", "anon_inode:") if "ALLOC_TEST_BUSY" in os.environ else ()
    return {number: target for number, target in found.items() if not target.startswith(busy)}


def libraries():
    """Files mapped into this process; none where there is no /proc."""
    fields = (line.split(None, 5) for line in _lines("/proc/self/maps"))
    return sorted({field[5] for field in fields if len(field) == 6 and field[5][0] == "/"})


def _c_state():
    """The C half: environment, signal actions, the interpreter's allocators, malloc."""
    if ctypes is None:
        return {}
    libc = ctypes.CDLL(None)
    strings = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    environ = []
    while strings and strings[len(environ)] is not None:
        environ.append(strings[len(environ)].decode(errors="replace"))
    actions = {}
    for number in range(1, signal.NSIG):
        action = ctypes.create_string_buffer(256)
        if libc.sigaction(number, None, action) == 0:
            actions[number] = action.raw[:8].hex()
    allocators = {}
    for domain, name in enumerate(DOMAINS):
        table = (ctypes.c_void_p * 5)()
        ctypes.pythonapi.PyMem_GetAllocator(domain, table)
        allocators[name] = list(table)
    names = ("malloc", "free", "realloc", "calloc", "mmap", "mallctl", "je_mallctl", "je_malloc")
    found = {}
    for name in names:
        function = getattr(libc, name, None)
        found[name] = function and ctypes.cast(function, ctypes.c_void_p).value
    return {
        "C environ": environ,
        "signal actions": actions,
        "interpreter's allocators": allocators,
        "C functions": found,
    }


def state():
    """All that importing a package about memory might change and must not."""
    return {
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "status": [line for line in _lines("/proc/self/status") if line.startswith(STATUS)],
        "limits": _lines("/proc/self/limits"),
        "threads": _entries("/proc/self/task"),
        "descriptors": _descriptors(),
        "files": [_entries(os.environ.get(name, "")) for name in ("HOME", "TMPDIR")],
        "Python's signal handlers": {
            number: repr(signal.getsignal(number)) for number in signal.valid_signals()
        },
        **_c_state(),
    }


def _settled():
    """The state, after what looking itself changes, and a busy host's start-up threads."""
    now, calm = state(), 0
    for _ in range(100):
        before, now = now, state()
        calm = calm + 1 if before == now else 0
        if calm == 4 or "ALLOC_TEST_BUSY" not in os.environ:
            break
        time.sleep(0.05)
    return now


def _differences(before, after):
    return {name: [before[name], after[name]] for name in before if before[name] != after[name]}


def _again(alloc):
    """In a guest: import again, reload, load afresh, `install()` and `info()`."""
    import importlib

    import alloc.cli

    first = alloc.decision()
    block = alloc.allocate(100)
    importlib.reload(alloc)
    again = [alloc.decision()]
    block.free()
    installed = bool(alloc.install())
    printed, status = io.StringIO(), None
    # Without: where the standard library's own modules, which it imports, are death.
    if os.environ.get("ALLOC_TEST_INFO") != "no":
        with contextlib.redirect_stdout(printed):
            status = alloc.cli.info()
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if _ours(name)}
    import alloc as fresh

    again.append(fresh.decision())
    fresh.allocate(100).free()
    sys.modules.update(kept)
    return {
        "same again": all(
            (each.embedding, each.allocator) == (first.embedding, first.allocator) for each in again
        ),
        "installed": installed,
        "info": printed.getvalue(),
        "info status": status,
    }


def _ours(name):
    return name.split(".")[0] == "alloc"


def report():
    """Import ``alloc`` (for the first time, one hopes) and say what came of it."""
    first = "alloc" not in sys.modules or "ALLOC_TEST_EARLY" in os.environ
    mapped = libraries()
    before = _settled()
    import alloc

    with alloc.allocate(4096) as block:  # the first use takes the decision
        owner = block.allocator.name
    decision = alloc.decision()
    after = state()
    guest = decision.embedding == "guest" and _again(alloc)
    verification = alloc.verify()
    return {
        "first": first,
        "python": sys.version.split()[0],
        "implementation": alloc.implementation,
        "decision": {
            name: getattr(decision, name)
            for name in ("embedding", "allocator", "rule", "origin", "reason", "evidence")
        },
        "block": owner,
        "verified": verification.ok,
        "verification": str(verification),
        "busy": "ALLOC_TEST_BUSY" in os.environ,
        "changed": _differences(before, after),
        "changed later": _differences(before, state()) if guest else {},
        **(guest or {}),
        "mapped": [path for path in libraries() if path not in mapped],
        "jemalloc mapped": mapped and any("jemalloc" in path for path in libraries()),
        "package": alloc.__file__,
        "main image": _main_image(),
        "tag": _tag(),
        "executable": sys.executable,
        "orig_argv": getattr(sys, "orig_argv", None),
        "initial thread": os.getpid() == _thread_id(),
    }


def _main_image():
    try:
        return os.readlink("/proc/self/exe")
    except OSError:
        return ""


def _tag():
    """Of extension modules, such as ``cpython-311-x86_64-linux-gnu``."""
    import sysconfig

    return sysconfig.get_config_var("SOABI")


def _thread_id():
    import threading

    return threading.get_native_id()


def emit(path=None):
    """Write the report as JSON to ``path``, by default where the test waits for it."""
    text = json.dumps(report())
    path = path or os.environ.get("ALLOC_TEST_REPORT")
    if path is None:
        print(text)
    else:
        with open(path, "w") as file:
            file.write(text)


def wsgi(environ, start_response):
    """The report as a WSGI application."""
    body = json.dumps(report()).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


async def asgi(scope, receive, send):
    """The report as an ASGI application."""
    if scope["type"] != "http":
        raise RuntimeError("http only")
    body = json.dumps(report()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    emit()
