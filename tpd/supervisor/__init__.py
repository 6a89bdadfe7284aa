"""The root half of the laptop's side.

tpd opens the TUN device, sets routes and the resolver, journals every change and starts session workers as their
callers. It parses no packets, no kubeconfig and nothing that came from the cluster, except the routes and domains
that a worker asks for, which `host.policy` checks.

Words: a *connection* is one caller's worker with its device. A *slot* is the small number from which the device's name,
table, rule priorities and addresses follow. A *wish* is what a worker wants of the host as a whole; what is *granted*
of it is applied. The *journal* lists what was changed, so that it can be undone after any crash.
"""
