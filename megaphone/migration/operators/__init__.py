"""Stateful operators and the control input; importing this puts them on Graph and Stream."""

from megaphone.migration.operators import control, state_machine, stateful, stateful_input

__all__ = ["control", "state_machine", "stateful", "stateful_input"]
