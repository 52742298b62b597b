"""Stateful operators and the control input; importing this puts them on Graph and Stream."""

from megaphone.migration.operators import binary, control, distribute, state_machine, stateful, stateful_input

__all__ = ["binary", "control", "distribute", "state_machine", "stateful", "stateful_input"]
