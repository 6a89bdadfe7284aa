"""The laptop's network: pure decisions (policy, plan, addresses, resolver choice) with thin application.

Only this package imports pyroute2 and runs the host's own tools (nft, busctl).
"""
