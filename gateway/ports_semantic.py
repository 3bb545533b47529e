"""The port of embeddings: texts become vectors whose inner product says how alike they are.

Apart from `gateway.ports`: it is of the extra `tollgate[semantic]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:  # see gateway.semantic: what it sets must be set before numpy is loaded
    import numpy as np
    from numpy.typing import NDArray

Vectors: TypeAlias = "NDArray[np.float32]"


class Embedder(Protocol):
    """Not for the event loop: it computes for milliseconds. One thread at a time may use it."""

    @property
    def name(self) -> str:
        """What vectors may be compared with each other: model, precision and version. Kept with stored ones."""
        ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 per text. A row depends on its own text alone."""
        ...
