"""Layer 6: counters into figures.  Nothing here lies on the way of a record.

* `histogram`: one latency distribution, log-linear, in C over numpy arrays
* `timeline`: one histogram per 250 ms of the scheduled time; warm-up; before, during and after a migration
* `ledger`: copies and allocations, merged over the workers
* `memory`: what a set of processes really occupies (PSS)
* `machine`: what the figures were measured on
* `report`: all of it as one JSON object, as the original's lines, or for people
* `doctor`: what this machine offers and what a run would get
* `inspect`: a run that goes on or is stopped, from its shared memory alone; `audit.h` checks the laws of hand-over
* `files`: output files that are written whole or not at all
* `units`: numbers with their units, for people
"""
