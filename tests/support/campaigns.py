"""The campaign: what needs mass. `make test` leaves it out, `make campaign` runs it and nothing else.

A campaign runs the tests marked `campaign` and all property tests. Its option is its size: `--campaign 1` takes the
counts as they are written and all cases, `--campaign 0.1` a tenth of them, `--campaign 10` ten times the counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

EXAMPLES = 2000  # of each property in a campaign of size 1
FEW_EXAMPLES = 30  # in `make test`
TIMEOUT_S = 3600  # of one test of a campaign

_size = 0.0  # 0 outside of a campaign


class Campaign:
    """How much a test has to do, and where it says what it found."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def count(self, usual: int, least: int = 1) -> int:
        """Return how many to take where a campaign of size 1 takes `usual`."""
        return max(least, round(usual * (_size or 1)))

    def tell(self, line: str) -> None:
        """Print a line below the name of the test when it is over."""
        self._properties.append(("campaign", line))


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """Give the counts of this campaign and its report: `campaign.count(20)`, `campaign.tell("20 kills")`."""
    return Campaign(request.node.user_properties)


def masses(cases: Iterable[Any], kept: Callable[[Any], bool]) -> list[Any]:
    """Return the cases of a test, of which `make test` takes those that are `kept` and a campaign the others."""
    return [
        case if kept(case) else pytest.param(*_values(case), marks=pytest.mark.campaign) for case in cases
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


def examples(few: int = FEW_EXAMPLES, many: int = EXAMPLES, allowed: Iterable[HealthCheck] = ()) -> settings:
    """Return the settings of a property test that takes `few` examples, and `many` in a campaign of size 1.

    Args:
        allowed: what Hypothesis is not to complain of; of slowness it never does, for that is the machine's.
    """
    count = max(1, round(many * _size)) if _size else few
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow, *allowed])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--campaign", type=float, default=0.0, metavar="SIZE",
        help="run the campaign and nothing else, with SIZE times the usual counts",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    global _size
    _size = config.getoption("campaign")
    settings.register_profile("test", deadline=None, database=None, derandomize=not _size, print_blob=True)
    settings.load_profile("test")
    settings.register_profile("examples", examples())
    settings.load_profile("examples")


def _is_chosen(item: pytest.Item) -> bool:
    """Whether a test runs: of the cases that count nothing themselves, a small campaign takes a share."""
    is_property = is_hypothesis_test(getattr(item, "obj", None))
    if item.get_closest_marker("campaign") is None:
        return not _size or is_property
    counts = is_property or "campaign" in getattr(item, "fixturenames", ())
    return bool(_size) and (counts or crc32(item.nodeid.encode()) % 1000 < 1000 * _size)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen, others = [], []
    for item in items:
        (chosen if _is_chosen(item) else others).append(item)
        if _size:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    statistics = getattr(item, "hypothesis_statistics", "")
    if _size and statistics and report.when == "call":
        passed, failed = (
            sum(map(int, re.findall(rf"(\d+) {w}", statistics))) for w in ("passing", "failing")
        )
        report.user_properties.append(("campaign", f"{passed} examples passed, {failed} failed"))
    return report


class Printer:
    """Prints what each test found when it is over, whichever process ran it, and counts those that tell nothing."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal
        self._counts: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        lines = [line for name, line in report.user_properties if name == "campaign"]
        if not lines:
            self._counts[report.nodeid.partition("[")[0], report.outcome] += 1
            return
        self._terminal.ensure_newline()
        self._terminal.write_line(f"{report.nodeid}: {report.outcome} in {report.duration:.0f} s")
        for line in lines:
            self._terminal.write_line(f"    {line}")

    def pytest_terminal_summary(self) -> None:
        for (name, outcome), count in sorted(self._counts.items()):
            self._terminal.write_line(f"{name}: {count} cases {outcome}")


def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.getplugin("terminalreporter")
    if _size and terminal:
        session.config.pluginmanager.register(Printer(terminal))
