"""Bytes and atomics: regions, chunks, slabs, blocks, rings, parking and counters. Knows no operator."""
