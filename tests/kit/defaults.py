"""What `install()` does where nobody says anything else."""

import sys

try:
    with open("/proc/self/maps", encoding="utf-8") as file:
        SHARED = "/libpython3." in file.read()
except OSError:
    SHARED = False

LATE = sys.version_info >= (3, 12) and "free-threading" not in sys.version
MODE = "full" if LATE and SHARED else "hybrid"
