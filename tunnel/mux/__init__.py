"""The multiplexer: many flows over two replaceable byte carriers. Pure; `docs/protocol.md` is the normative text.

* flow: one TCP connection or UDP association inside the tunnel
* link: joins one client process and one server process for one session; outlives carriers
* lane: one of the link's two ordered pipes (interactive, bulk), with its own batch numbers
* carrier: the gRPC stream under a lane, replaced when it dies
* batch: everything that was ready when a carrier could take a message; numbered, acknowledged, replayed
"""
