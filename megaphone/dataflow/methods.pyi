"""The methods that operators of all layers add to Graph, for editors and type checkers."""

from typing import Any

from megaphone.dataflow.operators.feedback import Feedback
from megaphone.dataflow.operators.input import Input
from megaphone.dataflow.stream import Stream
from megaphone.migration.operators.control import Control

class GraphMethods:
    """Base of Graph."""

    def input(self, name: str, columns: Any) -> tuple[Input, Stream]:
        """Add an input of these columns (name to dtype); every worker has a handle to its own."""

    def feedback(self, columns: Any, step: int = 1, *, name: str = "feedback") -> tuple[Feedback, Stream]:
        """Add a loop: what ``connect`` is given comes out of the stream ``step`` later."""
    # -- layer 5, migration ----------------------------------------------------------------------------------------
    def control(
        self, follows: Input | None = None, *, lead: int = 1, manual: bool = False, name: str = "control"
    ) -> Control:
        """Add a control input for stateful operators, which follows a data input unless it is manual."""
