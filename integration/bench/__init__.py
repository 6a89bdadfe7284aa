"""The benchmark: the same measurements over several paths to one workload, in one run. See docs/performance.md.

A **path** is a way for a client to reach the workload (from the node, `kubectl port-forward`, tpctl outbound, tpctl
inbound). `server.py` is the workload, `load/` the client: a process of its own inside the namespace where the path
begins, which prints what it measured as one line of JSON. `figures.py` says what must hold, `table.py` shows it.
"""
