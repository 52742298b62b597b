"""What a Python user has instead: the same keyed count and the same transport, one program for each rival.

Every program takes the same arguments, makes the same records in the same order and writes the same report:

    python -m megaphone.bench.rivals.numpy_ring --job count --domain 1000000 --seconds 3 --report ring.json

`common` holds what is asked and what is reported, `pair` two processes and what they do over any link; a rival's own
file holds its link and nothing else.
"""
