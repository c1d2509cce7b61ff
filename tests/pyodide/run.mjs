// Installs wheels into Pyodide and runs pytest there.
//
//   node run.mjs PYODIDE WHEELS TESTS [PYTEST ARGUMENT...]
//
// PYODIDE: the npm package's directory.  WHEELS: a directory; all wheels in it are
// installed by Pyodide itself, by their files and with nothing fetched.  TESTS: mounted
// as /tests, the only thing of the checkout that is seen inside.  Exits with pytest's
// status.

import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [pyodide, wheels, tests, ...args] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(resolve(pyodide, "pyodide.mjs")));
const python = await loadPyodide();

const extractDir = python.runPython("import site; site.getsitepackages()[0]");
for (const name of readdirSync(wheels).filter((name) => name.endsWith(".whl")).sort()) {
  python.unpackArchive(new Uint8Array(readFileSync(join(wheels, name))), "wheel", { extractDir });
}
python.FS.mkdir("/tests");
python.FS.mount(python.FS.filesystems.NODEFS, { root: resolve(tests) }, "/tests");
python.globals.set("arguments", python.toPy(args));

let status = 3;
try {
  status = await python.runPythonAsync(`
import os, sys
sys.dont_write_bytecode = True
import alloc
assert "site-packages" in alloc.__file__, alloc.__file__
print("Pyodide:", sys.version.split()[0], sys.platform, alloc.implementation, alloc.decision().rule)
import pytest
os.chdir("/tests")
int(pytest.main(arguments))
`);
} catch (error) {
  // Node would print the whole of Pyodide's minified source around it.
  console.error(`Pyodide died: ${error.message}`);
}
process.exit(status);
