"""What `install()` does where nobody says anything else."""

import sys

MODE = "full" if sys.version_info >= (3, 12) and "free-threading" not in sys.version else "hybrid"
