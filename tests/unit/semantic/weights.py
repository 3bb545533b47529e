"""Marks tests that need the weights of the built-in embedder."""

import pytest

from gateway.semantic import parts

needs_weights = pytest.mark.skipif(
    bool(parts.missing()), reason=f"the built-in embedder is not installed: {parts.advice(parts.missing())}"
)
