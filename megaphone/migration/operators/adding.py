"""A fold that the core knows: it adds to each record's row and sends the running value, and needs no Python to do so.

As a function it is ``lambda context: context.add_emit(key, value)``, and gives the same.  Told apart from a function, a
whole activation of S is one call of the core (``mp_adding_run`` in folds.h), which at low rates is most of its cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megaphone.migration.operators.fold_context import FoldContext


@dataclass(frozen=True)
class AddEmit:
    """A fold for stateful operators of one input.

    Attributes:
        key: the column that chose the bin.
        value: column that is added, of the dtype of the state's first column; None adds 1.
    """

    key: str
    value: str | None = None

    def __call__(self, context: FoldContext) -> None:
        """Do it in a call of Python: where the core cannot, as with an edge whose key is a user's function."""
        context.add_emit(self.key, self.value)
