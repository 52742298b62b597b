"""A Simulation that counts everything again after every step of every slot, for tests of any dataflow."""

from __future__ import annotations

from typing import Any

import pytest

from megaphone.dataflow.recounting import VARIABLE, RecountingWorker, recount_run
from megaphone.testing import Simulation


class RecountedSimulation(Simulation):
    """As a Simulation; slower.

    Attributes:
        recounts: of one slot, over all slots.
        run_recounts: of the sums over all slots.
    """

    recounts = 0
    run_recounts = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, "0")  # after every step of a slot
            super().__init__(*args, **options)

    def step(self, slot: int | None = None) -> bool:
        active = super().step(slot)
        # What the main program is about to send is an activation: sums over all slots are true when it is over.
        if not any(worker._dirty for worker in self.workers):  # noqa: SLF001
            recount_run(self.workers[0])
            type(self).run_recounts += 1
        return active

    @property
    def recounting(self) -> list[RecountingWorker]:
        """The workers, as what they are."""
        workers = [worker for worker in self.workers if isinstance(worker, RecountingWorker)]
        assert len(workers) == len(self.workers)
        return workers

    def close(self) -> None:
        type(self).recounts += sum(worker.recounts for worker in self.recounting)
        super().close()
