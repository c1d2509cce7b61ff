"""A host's own table: where it may be put, what is refused, and how it goes away."""

import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from launching import Failure, Missing

import alloc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "host_c"
PURE = {"ALLOC_IMPLEMENTATION": "python"}
pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_core]


@pytest.fixture(scope="module")
def host(kit):
    """Run code in a host; returns what it printed.  ``where``, ``kind``: see table.c."""

    def run(where, kind, *codes, exported=False, status=0, **environ):
        flags = [f"-I{alloc.get_include()}", f"-I{EXAMPLE}", str(EXAMPLE / "pool.c")]
        if exported:
            flags += ["-DEXPORTED", "-rdynamic"]
        try:
            program = kit.host("table.c", *flags)
        except (Missing, Failure) as error:
            pytest.fail(str(error), pytrace=False)
        done = subprocess.run(
            [program, where, kind, *map(textwrap.dedent, codes)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=kit.environ(PYTHONHOME=kit.home, PYTHONPATH=str(kit.packages), **environ),
        )
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run


IN_FORCE = """
    import alloc, host
    d = alloc.decision()
    assert (d.rule, d.origin, d.allocator, d.embedding) == ("host", "host", "pool", "guest"), d
    assert alloc.verify(), alloc.verify()
    block = alloc.allocate(1000)
    assert host.in_pool(block.address), block
    assert block.allocator is alloc.global_allocator() and block.allocator.name == "pool"
    block.resize(100_000)
    assert host.in_pool(block.address)
    with alloc.allocate(0): pass
    address = alloc.malloc(100)
    assert host.in_pool(address)
    address = alloc.realloc(address, 5000)
    assert host.in_pool(address) and alloc.usable_size(address) >= 5000
    alloc.free(address)
    print("place:", [e for e in d.evidence if "registered" in e][0])
"""
"""All that a guest sees of a table in force.  The block is left to finalization."""

WHERE = {
    "before": "the built-in module _alloc_host",
    "after": "sys._alloc_host",
    "statement": "sys._alloc_host",
    "exported": "the symbol alloc_host_exported",
}


@pytest.mark.parametrize("kind", ["counted", "sized", "newer and longer"])
@pytest.mark.parametrize("where", WHERE)
def test_registered(host, where, kind):
    """Each place, each kind: every byte from the pool, and nothing left after the end."""
    output = host(where, kind, IN_FORCE, exported=where == "exported")
    assert f"the host registered pool, at {WHERE[where]}" in output
    assert re.search(r"held 0 blocks, 0 bytes, granted [1-9]", output), output


def test_plain_table(host):
    """A table that is handed over as it is, uncounted."""
    host("before", "plain", IN_FORCE)


@pytest.mark.parametrize("where", ["before", "after"])
def test_initialized_again(host, where):
    """Each interpreter in turn gets the table, and leaves nothing in the pool."""
    output = host(where, "counted", IN_FORCE, IN_FORCE, IN_FORCE)
    assert len(re.findall("held 0 blocks, 0 bytes", output)) == 3, output


def test_unregistered(host):
    """Nothing registered: a guest has System."""
    host("none", "counted", "import alloc; assert alloc.decision().rule == 'guest'")


REFUSED = {
    "host too new": "ABI 2",
    "host too short": "8 bytes",
    "no table": "not the address of a table",
    "wild table": "not the address of a table",
    "too new": "too new",
    "too old": "too old",
    "too short": "too old",
    "NULL slot": "slot resize is NULL",
    "no name": "no name",
    "no memory": "no memory",
    "misaligned": "not aligned",
    "overlapping": "overlap",
    "not zeroed": "not zero",
    "contents lost": "lost its contents",
    "usable_size": "usable_size",
    "owns all": "claims an address",
    "owns nothing": "denies a block",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(host, kind):
    """A table that cannot be trusted: one warning that says why, and System serves."""
    output = host(
        "before",
        kind,
        """
        import alloc, host
        d = alloc.decision()
        assert (d.rule, d.origin, d.allocator) == ("guest", "default", "system"), d
        warnings = [e for e in d.evidence if e.startswith("warning: the host's table")]
        assert len(warnings) == 1, d.evidence
        with alloc.allocate(1000) as block:
            assert not host.in_pool(block.address)
        assert alloc.verify(), alloc.verify()
        print("evidence:", warnings[0])
        assert host.held()[0] == 0, host.held()    # the test took nothing with it
        """,
    )
    assert REFUSED[kind] in re.search("evidence: (.*)", output)[1]
    assert len(re.findall("RuntimeWarning: alloc: the host's table", output)) == 1, output


@pytest.mark.parametrize("implementation", ["cython", "python"])
@pytest.mark.parametrize("wild", ["12345", "1 << 40", "id(None)", "object()", "-8", "1 << 70"])
def test_wild_places(python, wild, implementation):
    """Whatever stands at the place: no crash, a refusal."""
    python(
        f"""
import sys, warnings
warnings.simplefilter("ignore")
sys._alloc_host = {wild}
import alloc
assert alloc.decision().rule != "host"
assert any("host's table" in e for e in alloc.decision().evidence), alloc.decision()
assert alloc.verify()
""",
        env={"ALLOC_IMPLEMENTATION": implementation},
    )


def test_overrides_come_first(host):
    """disable, environment and explicit win over the host; the table stays usable."""
    code = "import alloc; d = alloc.decision(); assert (d.rule, d.allocator) == ({!r}, {!r}), d"
    host("before", "counted", code.format("disable", "system"), ALLOC_DISABLE="1")
    host("before", "counted", code.format("environment", "system"), ALLOC_DEFAULT="system")
    host(
        "before",
        "counted",
        """
        import alloc, host
        mine = alloc.global_allocator()
        alloc.set_global_allocator(alloc.System())
        assert alloc.decision().rule == "explicit"
        assert not host.in_pool(alloc.allocate(100).address)
        with alloc.using(mine):
            assert host.in_pool(alloc.allocate(100).address)
            address = alloc.malloc(100)
        alloc.free(address)
        assert host.held()[0] == 0
        """,
    )


def test_what_the_guests_hold(host):
    """The counts are those of the granted sizes, and the peak is the most there was."""
    output = host(
        "after",
        "counted",
        """
        import alloc, host
        _, _, _, before, _ = host.held()
        blocks = [alloc.allocate(1000) for _ in range(50)]
        assert host.held()[:2] == (50, 50_000), host.held()
        blocks[0].resize(3000)
        assert host.held()[:2] == (50, 52_000), host.held()
        del blocks
        blocks, size, peak, granted, refused = host.held()
        assert (blocks, size, granted, refused) == (0, 0, before + 50, 0) and peak >= 52_000
        try:
            alloc.allocate(1 << 45)
        except alloc.AllocError as error:
            assert error.allocator == "pool" and host.held()[4] == 1, host.held()
        else:
            raise AssertionError
        leaked = alloc.malloc(77)
        """,
    )
    assert "held 1 blocks, 77 bytes" in output  # the ledger tells the host of a leak


def test_raw_addresses_of_a_table_that_needs_sizes(host):
    """The keeper remembers them, and names misuse; foreign ones go their own way."""
    host(
        "before",
        "sized",
        """
        import alloc, host
        mine, system = alloc.global_allocator(), alloc.System()
        def refused(error, call, *arguments):
            try:
                call(*arguments)
            except error:
                return
            raise AssertionError((call, arguments))
        a = alloc.malloc(100)
        assert mine.granted(a) and host.in_pool(a)
        assert alloc.calloc(10, 10) != 0
        assert mine.resize(a, 100, 90) and not mine.resize(a, 90, 1 << 21)
        refused(alloc.SizeMismatchError, mine.resize, a, 100, 50)
        refused(alloc.SizeMismatchError, mine.free_sized, a, 100)
        mine.free_sized(a, 90)
        refused(alloc.InvalidFreeError, mine.free, a)
        refused(alloc.InvalidFreeError, mine.free, alloc.allocate(100).address)
        refused(alloc.InvalidFreeError, mine.realloc, a, 5)
        b = mine.aligned_alloc(4096, 100)
        assert b % 4096 == 0
        b = mine.realloc(b, 9000)
        assert mine.resize(b, 9000, 9001)
        assert mine.realloc(b, 0) == alloc.EMPTY_ADDRESS
        assert mine.realloc(0, 0) == alloc.EMPTY_ADDRESS == mine.malloc(0)
        alloc.free(alloc.EMPTY_ADDRESS); alloc.free(0); mine.free_sized(alloc.EMPTY_ADDRESS, 0)
        foreign = system.malloc(100)
        assert not mine.granted(foreign)
        foreign = alloc.realloc(foreign, 200); alloc.free(foreign)
        """,
    )


REVOKED = """
    import alloc, host
    mine = alloc.global_allocator()
    old, raw, small = alloc.allocate(1000), alloc.malloc(500), alloc.malloc(20)
    memoryview(old)[:3] = b"abc"
    assert host.held()[:2] == (3, 1520), host.held()
    host.revoke(); host.revoke()
    d = alloc.decision()
    assert (d.rule, d.allocator) == ("guest", "system"), d
    assert "warning: the host's table does not serve: the host revoked it" in d.evidence
    assert mine.revoked and alloc.verify(), alloc.verify()
    new, new_raw, kept = alloc.allocate(1000), alloc.malloc(500), mine.allocate(1000)
    assert not any(map(host.in_pool, (new.address, new_raw, kept.address)))
    assert not host.in_pool(mine.malloc(64))
    assert host.held()[:2] == (3, 1520), host.held()
    old.resize(50_000)          # an old block keeps its table
    assert host.in_pool(old.address) and bytes(memoryview(old)[:3]) == b"abc"
    raw = alloc.realloc(raw, 40_000)
    assert host.in_pool(raw) and alloc.usable_size(raw) >= 40_000
    assert host.held()[:2] == (3, 90_020), host.held()
    alloc.free(new_raw); alloc.free(raw); mine.free(small); del new
    assert host.held()[:2] == (1, 50_000), host.held()
    old.free()                  # the last one is gone: the host may close its pool
    assert host.held()[:2] == (0, 0), host.held()
    kept.resize(2000); kept.free()
    """


@pytest.mark.parametrize("kind", ["counted", "sized"])
def test_revoked(host, kind):
    """New blocks come from System, old ones keep their table until the last is gone."""
    output = host("after", kind, REVOKED)
    assert "held 0 blocks, 0 bytes" in output


def test_revoked_before_the_import(host):
    """Then it was never there."""
    host(
        "after",
        "counted",
        "import host; host.revoke(); import alloc; assert alloc.decision().rule == 'guest'",
    )


def test_revoked_before_the_first_use(host):
    """Nor where nothing has been decided yet."""
    host(
        "after",
        "counted",
        "import alloc, host; host.revoke(); assert alloc.decision().rule == 'guest'",
    )


def test_revoked_under_another_choice(host):
    """An explicit choice stays in force."""
    host(
        "after",
        "counted",
        """
        import alloc, host
        alloc.set_global_allocator(alloc.System())
        host.revoke()
        assert alloc.decision().rule == "explicit" and alloc.verify()
        """,
    )


@pytest.mark.needs_jemalloc
def test_install_is_forbidden(host):
    """Even where the guest takes itself for standalone."""
    code = """
        import alloc
        done = alloc.install()
        assert not done, done
        assert ("the host forbids it" in done.refused) is {}, done
        """
    host("before", "forbidding", code.format(True), ALLOC_EMBEDDING="standalone")
    host("before", "counted", code.format(False))


def test_trim_from_c(host):
    """The host may ask its guest to give back what it can."""
    host("after", "counted", "import host; host.trim(); import alloc; assert alloc.verify()")


INTERPRETER = textwrap.dedent("""
    import host
    try:
        import _interpreters as interpreters
        new = lambda: interpreters.create("legacy")
    except ImportError:
        import _xxsubinterpreters as interpreters
        new = lambda: interpreters.create(isolated=False)
    def run(code):
        other = new()
        failed = interpreters.run_string(other, code)
        interpreters.destroy(other)
        assert not failed, failed
    """)


def test_a_second_interpreter_has_the_table(host):
    """Where the core cannot load twice, the arena takes its chunks from the host."""
    output = host(
        "before",
        "counted",
        INTERPRETER
        + """
import alloc
first = alloc.allocate(100)
run('''
import alloc, host
d = alloc.decision()
assert (d.rule, d.origin, d.allocator) == ("host", "host", "pool"), d
assert alloc.verify(), alloc.verify()
before = host.held()
block, large = alloc.allocate(1000), alloc.allocate(1 << 20)
assert host.in_pool(block.address) and host.in_pool(large.address)
assert host.held()[1] > before[1]
''')
assert host.held()[:2] == (1, 100), host.held()
""",
    )
    assert "held 0 blocks, 0 bytes" in output


def test_a_table_for_one_interpreter_only(host):
    """Registered while an interpreter runs, it is that interpreter's alone."""
    host(
        "after",
        "counted",
        INTERPRETER
        + """
import alloc
assert alloc.decision().rule == "host"
run("import alloc; assert alloc.decision().rule == 'no-core', alloc.decision()")
""",
    )


def test_a_table_for_each_interpreter(kit):
    """Each takes from its own, and gives all back to it."""
    flags = [f"-I{alloc.get_include()}", f"-I{EXAMPLE}", str(EXAMPLE / "pool.c")]
    try:
        program = kit.host("two.c", *flags)
    except (Missing, Failure) as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(
        [program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=kit.environ(PYTHONHOME=kit.home, PYTHONPATH=str(kit.packages)),
    )
    lines = ["first: 1 0", "second: 1 1", "second ended: 1 0", "end: 0 0", "left: 0 0"]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines), done.stdout + done.stderr


def test_pure_guest(host):
    """Without the core: the arena's chunks are the host's, revoked or not."""
    output = host(
        "after",
        "counted",
        """
        import alloc, host
        d = alloc.decision()
        assert (alloc.implementation, d.rule, d.allocator) == ("python", "host", "pool"), d
        assert alloc.verify(), alloc.verify()
        mine, block = alloc.global_allocator(), alloc.allocate(1000)
        view = alloc.allocate(1 << 20).view    # outlives its block
        assert host.in_pool(block.address)
        host.revoke()
        assert alloc.decision().allocator == "arena"
        new = alloc.allocate(1000)
        assert not host.in_pool(new.address) and host.held()[0] >= 2
        view[0] = 1; view.release(); block.free(); mine.trim()
        assert host.held()[:2] == (0, 0), host.held()
        """,
        **PURE,
    )
    assert "held 0 blocks, 0 bytes" in output
    output = host("before", "counted", "import alloc; block = alloc.allocate(5)", **PURE)
    assert "held 0 blocks, 0 bytes" in output


@pytest.mark.parametrize("kind", ["too new", "NULL slot", "not zeroed", "wild table"])
def test_pure_guest_refuses(host, kind):
    """As the core does."""
    host(
        "before",
        kind,
        """
        import alloc
        d = alloc.decision()
        assert d.rule == "no-core" and any("host's table" in e for e in d.evidence), d
        """,
        **PURE,
    )


@pytest.mark.parametrize("kind", ["plain", "counted", "sized"])
def test_conformance(host, kind):
    """The kit that every allocator must pass, on the host's."""
    import hypothesis
    import pytest as runner

    places = {Path(module.__file__).resolve().parents[1] for module in (hypothesis, runner)}
    output = host(
        "before",
        kind,
        f"""
        import sys
        sys.path += {[str(place) for place in places]}
        import alloc, alloc.testing
        mine = alloc.global_allocator()
        assert mine.name == "pool"
        alloc.testing.run_conformance_test(lambda: mine)
        print("conforms")
        """,
    )
    assert "conforms" in output
    assert "held 0 blocks, 0 bytes" in output
