"""Ready-made jobs for the command line and the benchmarks: word count, and the exchange on its own.

Each workload takes one frozen settings object (`settings`), builds a dataflow from the layers below, drives it, and
returns a report; it prints nothing but what goes through `progress_line`.  `text` turns files into columns of words.
"""
