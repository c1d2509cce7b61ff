"""The settings: ways to start a Python, each with the truth about it.

A function per setting starts it for real and returns what was reported from
inside.  ``test_embedding.py`` compares, ``table.py`` prints.
"""

# In the order of the table.
import standalones  # isort: skip
import servers  # isort: skip
import guests  # isort: skip
import programs  # isort: skip
import doubts  # isort: skip
from registry import SETTINGS

__all__ = ["SETTINGS", "doubts", "guests", "programs", "servers", "standalones"]
