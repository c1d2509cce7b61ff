"""What an application needs of `jemalloc_sys`: the libraries that a process loads.

Not the archive and the headers, which are for compilers.  jemalloc's licence wants to
go where its code goes.
"""

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs

LIBRARIES = ["lib*.so", "lib*.so.*"]

binaries = collect_dynamic_libs("jemalloc_sys", search_patterns=LIBRARIES)
datas = collect_data_files("jemalloc_sys", includes=["build_info.json", "COPYING.jemalloc"])
