"""The process is a program's that people install: vim, uWSGI, Apache with mod_wsgi, node.

These come from the distribution, and all but node bring the distribution's Python.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from launching import (
    HERE,
    HOSTED,
    REPORTING,
    Failure,
    Missing,
    ask,
    embedding_flags,
    free_port,
    program,
    serving,
    shared_library,
)
from registry import guest

PURE = {"ALLOC_IMPLEMENTATION": "python"}
BUSY = {"ALLOC_TEST_BUSY": "1"}
"""Other threads of the server's open and close sockets meanwhile."""


def _served_as_it_can(kit, report, **environ):
    """A core built for the Python that the host has must load there; another one cannot."""
    core = kit.packages / "alloc" / f"_core.{report['tag']}.so"
    expected = "cython" if core.exists() and not environ else "python"
    if report["implementation"] != expected:
        raise Failure(f"{report['implementation']}, not {expected}: {report['decision']}")
    return report


# --- vim --------------------------------------------------------------------------------


def _vim(kit, *lines, **environ):
    vim = program("vim")
    done = subprocess.run([vim, "--version"], capture_output=True, text=True, check=False)
    if "+python3" not in done.stdout:
        raise Missing("vim has no Python: install the package vim-nox")
    commands = [word for line in lines for word in ("-c", line)]
    command = [vim, "-N", "-u", "NONE", "-i", "NONE", "-n", "-e", "-s", *commands, "-c", "qa!"]
    return _served_as_it_can(kit, kit.run(command, **environ), **environ)


guest("vim", "needs_vim", implementation=None)(lambda kit: _vim(kit, f"py3 {REPORTING}"))
guest("vim, pure Python", "needs_vim", implementation="python")(
    lambda kit: _vim(kit, f"py3 {REPORTING}", **PURE)
)
guest("vim, a file from an autocommand", "needs_vim", implementation=None)(
    lambda kit: _vim(
        kit, f"autocmd User Test py3file {kit.script('report.emit()')}", "doautocmd User Test"
    )
)


# --- uWSGI: sys.executable is the very file that runs, as in a plain python -----------------


def _uwsgi(kit, *options):
    port = free_port()
    command = [program("uwsgi"), "--die-on-term", "--http-socket", f"127.0.0.1:{port}"]
    if os.path.isdir("/usr/lib/uwsgi/plugins"):  # a uWSGI from pip has it built in
        command += ["--plugin", "python3"]
    command += ["--pythonpath", str(HERE), "--module", "report:wsgi", *options]
    with serving(command, kit.path("uwsgi.log"), env=kit.environ(**BUSY)) as server:
        report = ask(port, server)
    if report["executable"] != report["main image"]:
        raise Failure(f"sys.executable is another file: {report['executable']}")
    return _served_as_it_can(kit, report)


guest("uWSGI", "needs_uwsgi", implementation=None)(lambda kit: _uwsgi(kit))
guest("uWSGI, master and two workers", "needs_uwsgi", implementation=None)(
    lambda kit: _uwsgi(kit, "--master", "--processes", "2")
)
guest("uWSGI, lazy apps and threads", "needs_uwsgi", implementation=None)(
    lambda kit: _uwsgi(kit, "--master", "--lazy-apps", "--enable-threads", "--threads", "2")
)


# --- Apache with mod_wsgi ------------------------------------------------------------------

APACHE = """
ServerRoot {place}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {place}/apache.pid
ErrorLog /dev/stderr
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
WSGISocketPrefix {place}/wsgi
WSGIScriptAlias / {place}/app.wsgi
<Directory {place}>
Require all granted
</Directory>
{more}
"""

DAEMON = """
WSGIDaemonProcess alloc processes=1 threads=2
WSGIProcessGroup alloc
"""

MAIN = "WSGIApplicationGroup %{GLOBAL}"
"""Otherwise mod_wsgi runs each application in a subinterpreter."""


@contextlib.contextmanager
def _public_place(kit):
    """A folder that a server under another user can read."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for source in kit.packages.iterdir():
            shutil.copytree(source, place / source.name)
        shutil.copy(HERE / "report.py", place)
        (place / "app.wsgi").write_text(
            f"import sys; sys.path.insert(0, {name!r}); from report import wsgi as application\n"
        )
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        yield place


def _apache(kit, more):
    apache = program("apache2")
    modules = "/usr/lib/apache2/modules"
    if not Path(modules, "mod_wsgi.so").exists():
        raise Missing("mod_wsgi is missing: install the package libapache2-mod-wsgi-py3")
    port = free_port()
    with _public_place(kit) as place:
        user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        text = APACHE.format(place=place, port=port, user=user, modules=modules, more=more)
        (place / "apache.conf").write_text(text)
        command = [apache, "-f", str(place / "apache.conf"), "-DFOREGROUND"]
        environ = kit.environ(**{**BUSY, "ALLOC_TEST_PATH": str(place)})
        with serving(command, kit.path("apache.log"), env=environ) as server:
            report = ask(port, server)
    if DAEMON not in more and "apache2" not in report["main image"]:
        raise Failure(f"this is not Apache: {report['main image']}")
    return report


# In a subinterpreter the core may serve or not: that is the interpreter's choice.
guest("mod_wsgi, embedded", "needs_apache", implementation=None)(
    lambda kit: _served_as_it_can(kit, _apache(kit, MAIN))
)
guest("mod_wsgi, embedded, subinterpreter", "needs_apache", implementation=None)(
    lambda kit: _apache(kit, "")
)
guest("mod_wsgi, daemon", "needs_apache", implementation=None)(
    lambda kit: _served_as_it_can(kit, _apache(kit, DAEMON + MAIN))
)
guest("mod_wsgi, daemon, subinterpreter", "needs_apache", implementation=None)(
    lambda kit: _apache(kit, DAEMON)
)


# --- node, through an addon ----------------------------------------------------------------


def _node(kit, visibility, code=REPORTING):
    node = program("node")
    headers = Path(os.path.realpath(node)).parents[1] / "include" / "node"
    if not (headers / "node_api.h").exists():
        raise Missing(f"{headers}/node_api.h is missing: install the package libnode-dev")
    addon = kit.host("addon.c", "-shared", "-fPIC", f"-I{headers}", *embedding_flags())
    words = [json.dumps(word) for word in (shared_library(), visibility, code)]
    script = kit.path("host.js")
    load = f"process.dlopen(module, {json.dumps(addon)});"
    script.write_text(f"{load} module.exports.run({', '.join(words)})")
    return kit.run([node, str(script)], PYTHONHOME=kit.home)


guest("node, addon, RTLD_GLOBAL", "needs_node", "needs_cc")(lambda kit: _node(kit, "global"))
# No extension module finds the interpreter's symbols, unless it names libpython itself.
guest("node, addon, RTLD_LOCAL", "needs_node", "needs_cc", implementation=None)(
    lambda kit: _node(kit, "local")
)
guest("node, addon, Python thread", "needs_node", "needs_cc")(
    lambda kit: _node(
        kit,
        "global",
        f"{HOSTED}; import threading; t = threading.Thread(target=report.emit); "
        "t.start(); t.join()",
    )
)
