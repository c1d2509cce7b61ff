"""``python -m alloc``.  No names are left here: `run` gives this module to the program."""

__import__("alloc.cli", fromlist=["main"]).main()
