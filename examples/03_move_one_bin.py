"""Move one bin of keyed state to another worker while records for it keep coming.

    python examples/03_move_one_bin.py

What to see: key 6 lives in bin 2. Its count goes on without a gap when the bin changes owner at time 5, and no byte
of the state is copied.
"""

import megaphone
from megaphone import DenseArray, Move


def build(graph):
    """Keys are small integers, so the state is an array; bin = low bits of the key."""
    keys, stream = graph.input("keys", {"key": "u8"})
    control = graph.control(keys)
    counts = stream.stateful_unary(
        key="key",
        hash="dense",
        state=DenseArray({"count": "u8"}),
        fold=lambda context: context.add_emit("key"),
        columns={"key": "u8", "count": "u8"},
        control=control,
        bin_shift=2,
        name="count",
    )
    seen = []
    return keys, control, counts.inspect(lambda batch: seen.append((batch.time, batch["count"].tolist()))).probe(), seen


def drive(worker, handles):
    """Worker 0 sends key 6 ten times and moves its bin half-way."""
    keys, control, probe, seen = handles
    for time in range(10):
        if worker.index == 0:
            keys.send({"key": [6]})
            if time == 4:
                # Control keeps a lead of one round, so this takes effect at time 5.
                control.send_instructions([Move(bin_id=2, worker=1)])
        keys.advance_to(time + 1)
        worker.step_until(lambda time=time: probe.done(time))
    keys.close()
    worker.run()
    counters = worker.counters()
    return seen, counters["bins_out"], counters["copied_migrate"]


if __name__ == "__main__":
    result = megaphone.execute(build, workers=2, drive=drive)
    for index, (seen, _, _) in enumerate(result.returned):
        print(f"worker {index} counted at times {[time for time, _ in seen]}: {[count for _, (count,) in seen]}")
    print("bins moved:", sum(out for _, out, _ in result.returned))
    print("bytes of state copied:", sum(copied for _, _, copied in result.returned))
