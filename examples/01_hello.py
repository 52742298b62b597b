"""Two workers exchange numbers through shared memory; each prints what reached it.

    python examples/01_hello.py

What to see: every worker sends 0..4, the exchange brings each number to one worker, whoever sent it, and the probe
tells when a time is complete everywhere.
"""

import megaphone


def build(graph):
    """Describe the dataflow; runs once on every worker and must build the same everywhere."""
    numbers, stream = graph.input("numbers", {"n": "u8"})
    return numbers, stream.exchange("n").inspect(show).probe()


def show(batch):
    """Look at whole batches: columns are numpy views of shared memory, nothing is copied."""
    print(f"time {batch.time}: {sorted(batch['n'].tolist())}")


def drive(worker, handles):
    """Steer one worker: send, advance time, wait until the probe has passed."""
    numbers, probe = handles
    for time in range(2):
        numbers.send({"n": [5 * time + i for i in range(5)]})
        numbers.advance_to(time + 1)
        worker.step_until(lambda time=time: probe.done(time))
    numbers.close()
    worker.run()
    return worker.counters()["copied_scatter"]


if __name__ == "__main__":
    result = megaphone.execute(build, workers=2, drive=drive)
    # 20 numbers of 8 bytes were scattered, each byte once.
    print("bytes copied by the exchange:", sum(result.returned))
