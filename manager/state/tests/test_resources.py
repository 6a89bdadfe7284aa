"""Quantities and sums."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from manager.state.resources import combined, quantity, resolve_reference


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("250m", Fraction(1, 4)),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 << 29),
        ("2E", 2 * 10**18),
        ("2e3", 2000),
        ("2E3", 2000),
        ("1e-3", Fraction(1, 1000)),
        (3, 3),
    ],
)
def test_quantity(text: object, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "1kb", "Mi", "1 Gi", "one", None])
def test_no_quantity(text: object) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.memory", "1Mi", "100"),
        ("limits.memory", None, "104857600"),
        ("limits.cpu", "1", "2"),  # 1.5 rounded up
        ("limits.cpu", "1m", "1500"),
        ("limits.cpu", "0", "2"),
        ("requests.cpu", "1", None),
    ],
)
def test_references(resource: str, divisor: str | None, value: str | None) -> None:
    resources = {"limits": {"memory": "100Mi", "cpu": "1500m"}}
    assert resolve_reference({"resource": resource, "divisor": divisor}, resources) == value


@pytest.mark.parametrize(
    ("each", "result"),
    [
        ([{}], {}),
        ([{"limits": None}], {}),
        ([{"limits": {"cpu": "10m"}}], {"limits": {"cpu": "250m"}}),
        ([{"limits": {"cpu": "0.5"}}, {"limits": {"cpu": "1"}}], {"limits": {"cpu": "1500m"}}),
        ([{"limits": {"cpu": "2"}}, {}], {}),
        ([{"requests": {"cpu": "2"}}, {}], {"requests": {"cpu": "2"}}),
        (
            [
                {"limits": {"a.io/gpu": "1", "cpu": "2"}},
                {"limits": {"hugepages-2Mi": "4Mi"}},
                {"limits": {"a.io/gpu": 2}},
            ],
            {"limits": {"a.io/gpu": "3", "hugepages-2Mi": "4Mi"}},
        ),
        ([{"claims": [{"name": "gpu"}]}, {"claims": [{"name": "gpu"}]}], {"claims": [{"name": "gpu"}]}),
    ],
)
def test_combined(each: list[dict[str, Any]], result: dict[str, Any]) -> None:
    assert combined(each, raise_limits=True) == result
