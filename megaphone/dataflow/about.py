"""What a run tells about itself to tools that look at its memory from outside: names for the core's numbers.

In shared memory a port is a location and a stateful operator a number.  The parent writes one text into the control
region before any worker starts, JSON, which the core never reads::

    {"pid", "started", "command", "data": {"device", "inode"},
     "operators": [{"name", "kind", "line", "volatile", "inputs": [location ...], "outputs": [location ...], ...}],
     "ports": [{"name", "operator", "columns", "source": location of the output that feeds an input}]}

A stateful operator adds ``state``: its number, the ports of both halves, its store.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from megaphone.dataflow.graph import Graph, InputPort, Operator, ports_of


def about_run(graph: Graph, data_fd: int) -> bytes:
    """Return the text for a finished graph.

    Args:
        graph: whose locations are numbered.
        data_fd: of the data region, so that a tool which finds several in one process knows which belongs to this.
    """
    data = os.fstat(data_fd)
    about = {
        "pid": os.getpid(),
        "started": time.time(),
        "command": list(sys.argv),
        "data": {"device": data.st_dev, "inode": data.st_ino},
        "operators": [_about_operator(operator) for operator in graph.operators],
        "ports": [port for index, operator in enumerate(graph.operators) for port in _about_ports(index, operator)],
    }
    return json.dumps(about, separators=(",", ":")).encode()


def _about_operator(operator: Operator) -> dict[str, Any]:
    return {
        "name": operator.name,
        "kind": type(operator).__name__,
        "line": operator.line,
        "volatile": operator.volatile,
        "inputs": [port.location for port in operator.inputs],
        "outputs": [port.location for port in operator.outputs],
        **operator.about(),
    }


def _about_ports(index: int, operator: Operator) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{operator.name}.{name}",
            "operator": index,
            "columns": port.schema.describe(),
            "source": port.source.location if isinstance(port, InputPort) else None,
        }
        for name, port in zip(operator.port_names(), ports_of(operator), strict=True)
    ]
