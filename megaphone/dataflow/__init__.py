"""Graph, streams, channels and batches; the worker and its step; processes that host it."""
