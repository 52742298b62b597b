"""Bins and what lives in them: dense arrays, hash tables and post-dated records, in blocks that change owner whole."""
