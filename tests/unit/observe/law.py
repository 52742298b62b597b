"""What must hold of a run wherever it is stopped: for tests that step a Simulation and tests that stop processes.

With all slots even, records add up exactly: what was sent is what the bins have applied and what lies in inboxes,
rings, outboxes and stashes, each message counted once. An odd slot makes that too high by at most what it has fixed.
Bins, owners, maps and state messages agree always; what an odd slot explains is not a finding.
"""

from __future__ import annotations

import numpy as np

from megaphone._core import lib
from megaphone.observe.inspect_look import Audit, Look, Stateful, sum_of
from megaphone.shm.counters import COUNTER_INDEX


def sent_records(look: Look) -> int:
    """Return how many records inputs have sent, as the slots count them."""
    index = COUNTER_INDEX["input_records"]
    return sum(int(lib.mp_counter_read(look.control, slot, index)) for slot in range(look.slots))


def content(look: Look, stateful: Stateful) -> tuple[int, int]:
    """Return the sum of the first column over all rows of all bins, and what bins say is torn."""
    total = torn = 0
    for _, bins, sums in look.bins(stateful):
        torn |= int(np.bitwise_or.reduce(bins["torn"]))
        total += sum(int(sum_of(sums[index, 0], stateful.kinds[0])) for index in np.flatnonzero(bins["keys"]))
    return total, torn


def check(look: Look, *, rows: bool = True) -> Audit:
    """Check the law of the one stateful operator of a run, and return the audit.

    Args:
        look: at it.
        rows: each record adds one to the first column of its key, and none is post-dated: the rows must add up, too.
    """
    (stateful,) = look.stateful
    audit = look.audit(stateful)
    state = {name: value for name, value in audit.figures.items() if value}
    assert audit.findings == (), (audit.findings, state)
    sent = sent_records(look)
    sums = {"shown": audit["shown"]}
    if rows:
        counted, torn = content(look, stateful)
        assert not torn & lib.MP_TORN_UNREADABLE, state
        sums |= {"applied": audit["applied"], "counted": counted}
    for name, applied in sums.items():
        off = applied + audit.on_the_way - sent
        # An activation in progress leaves its inputs where they are until it has published.
        assert 0 <= off <= audit["fixed"], (name, off, sent, state)
        if not audit["odd"]:
            assert off == 0, (name, off, sent, state)
    if not audit["odd"]:
        assert audit["fixed"] == audit["staged"] == audit["bins_between"] == 0, state
    return audit
