"""NEXMark: an auction house's stream of persons, auctions and bids, and the queries that the field compares engines by.

``events`` makes the streams, as columns; ``schemas`` and ``names`` say what is in them; ``generate`` writes them to
files.
"""
