"""References are resolved as the kubelet resolves them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.expansion import escape, expand

VARIABLES = {"A": "1", "B": "$(A)", "": "nothing", "x y": "blank", "A(": "open"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("<$(A)$(A)>", "<11>"),
        ("$(B)", "$(A)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("price: 5$$", "price: 5$"),
        ("$", "$"),
        ("a$b $A ${A}", "a$b $A ${A}"),
        ("$(A", "$(A"),
        ("$(A$(A)", "$(A$(A)"),
        ("$(A()", "open"),
        ("$()", "nothing"),
        ("$(x y)", "blank"),
        ("$($$)", "$($$)"),
        ("$(UNKNOWN)$$", "$(UNKNOWN)$"),
    ],
)
def test_rules(text: str, expected: str) -> None:
    assert expand(text, VARIABLES.get) == expected


@given(st.text(alphabet="$()AB x\n", max_size=40))
def test_escaped_text_comes_out_unchanged(text: str) -> None:
    assert expand(escape(text), VARIABLES.get) == text
