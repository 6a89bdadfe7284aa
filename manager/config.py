"""What the chart tells the manager (`TPCTL_CONFIG`, JSON; helm/tpctl/templates/_helpers.tpl is its other end)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SESSIONS_PORT = 8443
AGENTS_PORT = 8444
WEBHOOK_PORT = 8445
HEALTH_PORT = 8446

SERVICE = "traffic-manager"
ROOT_SECRET = "tpctl-root"
TOKEN_AUDIENCE = "traffic-manager"


class ConfigError(Exception):
    """The environment is not what the chart makes; the text says where."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """How agents are put into pods."""

    image: str = "tpctl/agent"
    pull_policy: str = "IfNotPresent"
    resources: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that is known before the API server is asked."""

    pod_name: str
    pod_uid: str
    namespace: str
    pod_addresses: tuple[Address, ...] = ()
    lease_seconds: float = 300.0
    """Seconds after which a session that was not renewed ends."""
    agent_deadline_seconds: float = 120.0
    """Seconds that a new pod's agent has to report."""
    deny: tuple[Network, ...] = ()
    """Never dialled for a session, besides what never is."""
    pod_networks: tuple[Network, ...] = ()
    """The pods' networks; empty: found out."""
    untouched_namespaces: tuple[str, ...] = ()
    """Whose pods the API server does not show to the webhook."""
    webhook_configuration: str = ""
    """Name of the MutatingWebhookConfiguration whose CA bundle is ours."""
    policy: str = ""
    """Name of the ValidatingAdmissionPolicy (and of its binding) that keeps false names out."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    log_level: str = "info"


def from_environment(environment: Mapping[str, str]) -> Config:
    """Read the pod's environment. Raises `ConfigError`."""
    try:
        document = json.loads(environment.get("TPCTL_CONFIG") or "{}")
        agent = document.get("agent") or {}
        return Config(
            pod_name=environment["POD_NAME"],
            pod_uid=environment["POD_UID"],
            namespace=environment["POD_NAMESPACE"],
            pod_addresses=tuple(
                ipaddress.ip_address(text) for text in environment.get("POD_IPS", "").split(",") if text
            ),
            lease_seconds=float(document.get("leaseSeconds", 300)),
            agent_deadline_seconds=float(document.get("agentDeadlineSeconds", 120)),
            deny=tuple(ipaddress.ip_network(text, strict=False) for text in document.get("deny") or ()),
            pod_networks=tuple(ipaddress.ip_network(text, strict=False) for text in document.get("podCIDRs") or ()),
            untouched_namespaces=tuple(str(name) for name in document.get("untouchedNamespaces") or ()),
            webhook_configuration=str(document.get("webhookConfiguration") or ""),
            policy=str(document.get("policy") or ""),
            agent=AgentConfig(
                image=str(agent.get("image") or "tpctl/agent"),
                pull_policy=str(agent.get("pullPolicy") or "IfNotPresent"),
                resources=agent.get("resources") or {},
            ),
            log_level=str(document.get("logLevel") or "info"),
        )
    except KeyError as error:
        raise ConfigError(f"the environment variable {error} is not set; the chart helm/tpctl sets it") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"TPCTL_CONFIG cannot be used: {error}") from error
