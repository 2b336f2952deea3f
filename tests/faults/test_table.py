"""The fault table is whole: each number has a test that passed, each test in it exists, no test is missing."""

import re
from pathlib import Path

import pytest
from faults.elsewhere import ELSEWHERE
from faults.invariants import INVARIANTS
from faults.report import PAGE, page, rows

TESTS = Path(__file__).parents[1]


def marked() -> set[str]:
    """Tests with a number, in the sources."""
    found = set()
    for file in (TESTS / "faults").glob("test_*.py"):
        text = file.read_text()
        for match in re.finditer(r"^@pytest\.mark\.fault\(", text, re.MULTILINE):
            function = re.search(r"^(?:async )?def (test_\w+)", text[match.start() :], re.MULTILINE)
            assert function
            found.add(f"faults/{file.name}::{function[1]}")
    return found


def test_each_number_has_a_test_that_passed() -> None:
    passed = {row.number for row in rows() if row.outcome == "passed"}
    assert set(INVARIANTS) == set(range(1, 26))
    assert passed == set(INVARIANTS)
    assert [row.test for row in rows() if row.outcome != "passed"] == []


def test_the_table_names_the_tests_that_there_are() -> None:
    assert {row.test.partition("[")[0] for row in rows()} == marked() | set(ELSEWHERE)


@pytest.mark.parametrize("test", ELSEWHERE)
def test_tests_elsewhere_exist(test: str) -> None:
    file, function = test.split("::")
    assert re.search(rf"^(?:async )?def {function}\(", (TESTS / file).read_text(), re.MULTILINE)


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text() == page(rows())
