"""Two modules, one table."""
