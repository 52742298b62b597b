"""Benchmarks: each run a fresh process, rivals in turns on the same machine."""
