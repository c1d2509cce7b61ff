"""The layer table of src/alloc/README.md holds for every file of the package."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "src" / "alloc"
MODULE = re.compile(r"^\s*(?:from\s+(\.*[\w.]*)\s+c?import\s+(.+)|c?import\s+([\w., ]+))")


def layer_table():
    table = {}
    for line in (PACKAGE / "README.md").read_text().splitlines():
        found = re.match(r"\|\s*(\d+)\s*\|([^|]+)\|", line)
        if found:
            for name in re.findall(r"`([^`]+)`", found[2]):
                table[name] = int(found[1])
    return table


LAYERS = layer_table()
INCLUDED = {"_block.pxi": "_core", "_global.pxi": "_core"}  # part of that module
SHARED = [name for name in LAYERS if name.endswith(".pxd")]  # no module of the same name


def unit(path):
    """The name under which a file stands in the table."""
    parts = path.relative_to(PACKAGE).parts
    stem = parts[0].split(".")[0]
    if path.name in SHARED:
        return path.name
    if path.suffix == ".pxi":
        return INCLUDED[path.name]
    if re.match(r"_arena", stem):
        return "_arena"
    return stem


def layer(name):
    assert name in LAYERS, f"{name} has no line in src/alloc/README.md"
    return LAYERS[name]


def resolve(module, names, path):
    """Package-local units that an import statement means."""
    level = len(module) - len(module.lstrip("."))
    tail = module.lstrip(".")
    if level == 0:
        if tail != "alloc" and not tail.startswith("alloc."):
            return []
        tail = tail[6:]
    elif level > len(path.relative_to(PACKAGE).parts):
        return []
    elif level < len(path.relative_to(PACKAGE).parts):
        return []  # within one sub-package, which is one unit
    if tail:
        return [tail.split(".")[0]]
    local = {p.name.split(".")[0] for p in PACKAGE.iterdir()}
    return [name if name in local else "__init__" for name in names]


def python_imports(path):
    """(unit, inside a function or type-checking only) for each import."""
    tree = ast.parse(path.read_text())
    late = set()
    for node in ast.walk(tree):
        guard = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if guard or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body if guard else ast.walk(node)
            for inner in body:
                late.update(
                    id(n) for n in ast.walk(inner) if isinstance(n, (ast.Import, ast.ImportFrom))
                )
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for found in resolve(module, [a.name for a in node.names], path):
                yield found, id(node) in late
        elif isinstance(node, ast.Import):
            for alias in node.names:
                for found in resolve(alias.name, [], path):
                    yield found, id(node) in late


def cython_imports(path):
    text = re.sub(r"\(\s*\n([^)]*)\)", lambda m: " ".join(m[0].split()), path.read_text())
    for line in text.splitlines():
        found = MODULE.match(line)
        if not found:
            continue
        if found[1]:
            names = [n.strip(" ()") for n in found[2].split(",")]
            if f"{found[1].rpartition('.')[2]}.pxd" in SHARED:
                yield f"{found[1].rpartition('.')[2]}.pxd", False
                continue
            for name in resolve(found[1], names, path):
                yield name, line.startswith(" ")
        else:
            for module in found[3].split(","):
                for name in resolve(module.strip().split()[0], [], path):
                    yield name, line.startswith(" ")


FILES = sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".pyx", ".pxi", ".pxd"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_from_above(path):
    own = unit(path)
    reader = python_imports if path.suffix == ".py" else cython_imports
    for other, late in reader(path):
        if other == own:
            continue
        if late and own in ("_default", "_lazy"):
            continue  # names and backends that are loaded on use
        if late and other == "_exchange":
            continue  # what blocks are to other libraries, loaded when one asks
        assert layer(other) < layer(own) or (late and layer(other) <= layer(own)), (
            f"{own} (layer {layer(own)}) imports {other} (layer {layer(other)})"
        )


def test_the_two_implementations_do_not_know_each_other():
    for path in FILES:
        imports = dict(python_imports(path) if path.suffix == ".py" else cython_imports(path))
        if unit(path) == "_core":
            assert not {"_arena", "_pure"} & set(imports)
        if unit(path) in ("_arena", "_pure"):
            assert "_core" not in imports


def test_one_reader_of_the_environment_and_no_writer():
    for path in PACKAGE.glob("*.py"):
        if path.name != "_environ.py":
            assert "os.environ" not in re.sub(r'"""[\s\S]*?"""', "", path.read_text()), path.name
    for path in FILES:
        assert "putenv" not in path.read_text()


def test_the_checker_sees_a_wrong_import(tmp_path):
    wrong = PACKAGE / "errors.py"
    found = list(python_imports(wrong))
    assert ("layout", True) in found, "the type-checking import is not seen"


def test_every_line_of_the_table_is_a_file():
    for name in LAYERS:
        if "*" in name or name in ("testing", "cli", "__main__"):
            continue
        stem = name if name.endswith((".h", ".pxd")) else name + ".py"
        candidates = [PACKAGE / stem, PACKAGE / f"{name}.pyx", PACKAGE / name / "__init__.py"]
        assert any(path.exists() for path in candidates), f"{name} is gone"


def test_no_file_outgrows_its_purpose():
    for path in [*FILES, *PACKAGE.rglob("*.h")]:
        assert len(path.read_text().splitlines()) <= 515, path
