"""Write a fold of your own: the mean of the readings of each sensor, over whole columns, no loop over records.

python examples/04_your_own_fold.py
"""

import numpy as np

import megaphone
from megaphone import HashTable


def build(graph):
    """State is a row per sensor: how many readings, and their sum."""
    readings, stream = graph.input("readings", {"sensor": "u4", "value": "f8"})
    means = stream.stateful_unary(
        key="sensor",
        state=HashTable("u4", {"count": "u8", "sum": "f8"}),
        fold=mean_fold,
        columns={"sensor": "u4", "mean": "f8"},
        per_time=True,
        name="mean",
    )
    seen = []
    return readings, means.inspect(lambda batch: seen.append(batch.own())).probe(), seen


def mean_fold(context):
    """Called once per complete time, with all of its records on this worker."""
    sensors, at = np.unique(context.column("sensor"), return_inverse=True)
    values = context.column("value")
    rows = context.state.rows(sensors)  # found, or made with zeros
    count = context.state.gather(rows, "count") + np.bincount(at).astype(np.uint64)
    total = context.state.gather(rows, "sum") + np.bincount(at, weights=values)
    context.state.put(rows, "count", count)
    context.state.put(rows, "sum", total)
    context.output.send({"sensor": sensors, "mean": total / count})


def drive(worker, handles):
    """Each worker reads its own half of the sensors' values."""
    readings, probe, seen = handles
    for time in range(3):
        sensors = np.array([1, 2, 3], np.uint32)
        readings.send({"sensor": sensors, "value": sensors * 10.0 + time + worker.index})
        readings.advance_to(time + 1)
        worker.step_until(lambda time=time: probe.done(time))
    readings.close()
    worker.run()
    return [(int(s), float(m)) for columns in seen for s, m in zip(columns["sensor"], columns["mean"], strict=True)]


if __name__ == "__main__":
    result = megaphone.execute(build, workers=2, drive=drive)
    last = {sensor: mean for part in result.returned for sensor, mean in part}
    for sensor, mean in sorted(last.items()):
        print(f"sensor {sensor}: mean {mean:.2f}")
