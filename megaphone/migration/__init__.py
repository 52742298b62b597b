"""Control stream, routing, stateful operators, plans and pacing: how bins change owner while the stream runs."""
