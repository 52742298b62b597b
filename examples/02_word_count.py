"""Count words with state that lies in shared memory, in bins, on two workers.

python examples/02_word_count.py
"""

import megaphone
from megaphone import HashTable

LINES = [b"the quick brown fox", b"jumps over the lazy dog", b"the fox and the dog"]


def build(graph):
    """Words come in as a bytes column; each is counted in the bin that its hash names."""
    words, stream = graph.input("words", {"word": "bytes"})
    counts = stream.stateful_unary(
        key="word",
        state=HashTable("bytes", {"count": "u8"}),
        fold=lambda context: context.add_emit("word"),
        columns={"word": "bytes", "count": "u8"},
        name="count",
    )
    return words, counts, counts.probe()


def drive(worker, handles):
    """Worker 0 reads the text; both count."""
    words, counts, _ = handles
    if worker.index == 0:
        for time, line in enumerate(LINES):
            words.send({"word": line.split()})
            words.advance_to(time + 1)
    words.close()
    worker.run()
    # The table is still here: read the bins that this worker owns.
    return {
        key.decode(): int(count)
        for keys, values in counts.state.items()
        for key, count in zip(keys, values["count"], strict=True)
    }


if __name__ == "__main__":
    result = megaphone.execute(build, workers=2, drive=drive)
    totals = {word: count for part in result.returned for word, count in part.items()}
    for word, count in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:4]:
        print(word, count)
