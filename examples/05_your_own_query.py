"""A query of your own on NEXMark's events: bids per minute and category; all bins move half-way."""

import numpy as np

from megaphone import HashTable, Move, execute
from megaphone.workloads.nexmark.events import Generator

SECOND, MINUTE, U8, NONE = 10**9, 60 * 10**9, HashTable("u8", {"value": "u8"}), np.uint64(2**64 - 1)


def build(graph):
    auctions, auction = graph.input("auctions", {"id": "u8", "category": "u8"})
    bids, bid = graph.input("bids", {"auction": "u8", "date_time": "u8"})
    key, flex = {"key": "u8"}, {"control": graph.control(bids), "bin_shift": 4, "per_time": True}
    placed = auction.stateful_binary(bid, left_key="id", right_key="auction", state=U8, fold=place, columns=key, **flex)
    counts = placed.stateful_unary(key="key", state=U8, fold=count, columns=key | {"bids": "u8"}, pending=key, **flex)
    return auctions, bids, flex["control"], counts.probe(), counts.capture("counts")


def place(context):  # at one time auctions come before bids; a bid on what nobody has opened counts for nothing
    context.state.put(context.state.rows(context.left_column("id")), "value", context.left_column("category"))
    rows = context.state.rows(context.right_column("auction"), insert=False)
    minute = context.right_column("date_time")[rows != NONE] // MINUTE
    context.output.send({"key": minute * 100 + context.state.gather(rows[rows != NONE], "value")})


def count(context):  # the first bid on a key sends a record to the end of its minute, which tells and forgets
    for over in context.pending:
        rows = context.state.rows(over["key"])
        context.output.send({"key": over["key"], "bids": context.state.gather(rows, "value")})
        context.state.remove(np.sort(rows)[::-1])
    if context.input:
        keys, more = np.unique(np.concatenate([batch["key"] for batch in context.input]), return_counts=True)
        before = context.state.gather(rows := context.state.rows(keys), "value")
        context.state.put(rows, "value", before + more.astype(np.uint64))
        context.post_date({"key": keys[before == 0]}, (keys[before == 0] // 100 + 1) * MINUTE)


def drive(worker, handles):
    auctions, bids, control, probe, _ = handles
    events = Generator("fast", worker.index, worker.peers, rate=1000, in_flight=1000)
    for time in range(SECOND, 241 * SECOND, SECOND):  # a second of event time is one logical time
        _, auction, bid = events.take(events.due(time))
        auctions.send({name: auction[name] for name in ("id", "category")})
        bids.send({name: bid[name] for name in ("auction", "date_time")})
        if worker.index == 0 and time == 120 * SECOND:
            control.send_instructions([Move(bin_id=b, worker=(b + 1) % worker.peers) for b in range(16)])
        auctions.advance_to(time)
        bids.advance_to(time)
        worker.step_until(lambda time=time: probe.done(time - 10 * SECOND))
    auctions.close()
    bids.close()
    worker.run()


if __name__ == "__main__":
    counts = execute(build, workers=2, drive=drive).captures["counts"]
    for key, number in sorted(zip(counts["key"].tolist(), counts["bids"].tolist(), strict=True)):
        print(f"minute {key // 100}, category {key % 100}: {number:6,} bids")
