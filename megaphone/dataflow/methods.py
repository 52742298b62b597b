"""What operators add to Graph: empty here, so that this layer knows only the registry; listed in ``methods.pyi``."""

from __future__ import annotations


class GraphMethods:
    """Base of Graph; see the stub beside this file for the methods that importing the operators gives it."""
