"""What of the machine's state is compared."""

from integration.cluster.machine import can_be_ours, steady

_ADDRESS = "2: eth0 inet 192.0.2.7/24 scope global dynamic eth0\\ valid_lft {}sec preferred_lft {}sec\n"


def test_a_lease_that_counts_down_changes_nothing() -> None:
    assert steady(_ADDRESS.format(3600, 3600)) == steady(_ADDRESS.format(3598, 3598))
    assert "192.0.2.7/24" in steady(_ADDRESS.format(3600, 3600))


def test_only_what_a_cluster_makes_is_compared() -> None:
    ours = ["/sys/fs/cgroup/tpctl-cluster-default/pod1", "/var/lib/kubelet", "/etc/cni", "/run/netns/cni-1"]
    theirs = ["/sys/fs/cgroup/user.slice/session-9.scope", "/var/log/syslog.1", "/etc/ld.so.cache~"]
    assert can_be_ours([*theirs, *ours]).splitlines() == ours
