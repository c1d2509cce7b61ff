"""What Hypothesis's entry point calls.  Importing this costs nothing until it does."""

from __future__ import annotations


def register() -> None:
    """Teach ``st.from_type`` what a Layout is."""
    from hypothesis import strategies as st

    from alloc import Layout

    from .strategies import layouts

    st.register_type_strategy(Layout, layouts())
