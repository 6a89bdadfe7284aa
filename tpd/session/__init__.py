"""The session worker: one process per connection, run as the user.

Glossary. A *session* is this laptop's connection to one traffic-manager, an *engagement* one replace of one
container, a *link* joins this worker and one peer process (manager or agent), a *carrier* is a port-forward under a
link's gRPC channel. *Names* says which DNS names belong to the cluster; *upstream* is the laptop's own resolver.
Modules that say "Pure" in their first line take bytes, objects, time and randomness as arguments and do no I/O.
"""

from tunnel.grpc_engine import choose

choose()
