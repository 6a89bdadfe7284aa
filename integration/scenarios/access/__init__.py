"""Raw access: what somebody reaches who leaves tpctl aside and talks to ports, sockets and the API server himself.

    test_ports               without a live session's certificate nothing opens on the manager's and the agents' ports
    test_tokens              the agents' port: a token proves one pod, and no other
    test_agents              a session gets from an agent what its own engagement grants, by whatever way it comes
    test_compromised_agent   an agent in wrong hands reaches the engaged port's target on the laptop, and nothing else
    test_dials               the manager dials neither metadata services nor loopback nor itself, whatever name is given
    test_forgery             false users, updates, finalizers and owners; what was made before the policy worked
    test_daemon              what tpd refuses a hostile worker, and who may talk to it
    test_garbage             garbage on any port or socket ends that connection only

docs/security.md says what enforces each.
"""
