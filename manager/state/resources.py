"""Arithmetic on container resources: what an agent needs that takes the place of one container or several.

Quantities follow `k8s.io/apimachinery/pkg/api/resource`: a decimal number with a decimal suffix, a binary suffix, or
an exponent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(m|u|n|k|[KMGTPE]i|[MGTPE]|[eE][+-]?\d{1,3})?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

LEAST_LIMITS: Mapping[str, str] = {"memory": "128Mi", "cpu": "250m"}
"""A limit below this is raised: the agent is a Python process of about 60 MiB that would be killed by a limit fit
for a small Go program, and take minutes to start with a hundredth of a core."""

_SHARED = frozenset({"cpu", "memory", "ephemeral-storage"})
"""Resources of which a container without limit may take what the node has."""


def quantity(text: object) -> Fraction:
    """The exact value of a quantity. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a quantity.")
    number, suffix = Fraction(match.group(1)), match.group(2) or ""
    if suffix in _DECIMAL:
        return number * Fraction(10) ** _DECIMAL[suffix]
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    return number * Fraction(10) ** int(suffix[1:])


def _text(value: Fraction) -> str:
    """A quantity of that value: whole, or rounded up to thousandths."""
    return str(value.numerator) if value.denominator == 1 else f"{ceil(value * 1000)}m"


def resolve_reference(reference: Mapping[str, Any], resources: Mapping[str, Any]) -> str | None:
    """What a `resourceFieldRef` of a container with these resources gives: `value / divisor`, rounded up.

    None when the container states no such resource: the kubelet then answers with what the node has.
    Raises ValueError for what is no quantity.
    """
    kind, _, name = str(reference.get("resource", "")).partition(".")
    stated = (resources.get(kind) or {}).get(name)
    if stated is None:
        return None
    divisor = quantity(reference.get("divisor") or "1") or Fraction(1)
    return str(ceil(quantity(stated) / divisor))


def combined(all_resources: Sequence[Mapping[str, Any]], *, raise_limits: bool) -> dict[str, Any]:
    """The resources of one container that stands for several: sums, and no limit where one of them has none.

    Of what is not shared but given out (devices, huge pages) a container without limit has nothing, and Kubernetes
    wants request and limit to be the same: there the sum is of those that have some.

    With `raise_limits` a limit below LEAST_LIMITS is raised to it. Raises ValueError for what is no quantity.
    """
    result: dict[str, Any] = {}
    for kind in ("requests", "limits"):
        each = [resources.get(kind) or {} for resources in all_resources]
        names = dict.fromkeys(name for one in each for name in one)
        amounts: dict[str, str] = {}
        for name in names:
            stated = [str(one[name]) for one in each if name in one]
            if kind == "limits" and name in _SHARED and len(stated) < len(each):
                continue
            amounts[name] = stated[0] if len(stated) == 1 else _text(sum(map(quantity, stated), Fraction(0)))
            if kind == "limits" and raise_limits and name in LEAST_LIMITS:
                least = LEAST_LIMITS[name]
                if quantity(amounts[name]) < quantity(least):
                    amounts[name] = least
        if amounts:
            result[kind] = amounts
    claims = [claim for resources in all_resources for claim in resources.get("claims") or []]
    if claims:
        result["claims"] = [claim for number, claim in enumerate(claims) if claim not in claims[:number]]
    return result
