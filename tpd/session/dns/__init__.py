"""The DNS server inside the tunnel: what belongs to the cluster goes there, everything else where it went before."""
