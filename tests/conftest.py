"""What every test run has in common: with CI set in the environment, a skipped test fails it."""

import os

import pytest
from hypothesis import settings

# A slow or busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_skipped: list[str] = []


def _skips_fail() -> bool:
    return bool(_skipped) and os.environ.get("CI", "").lower() not in ("", "0", "false")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skips_fail() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skips_fail():
        terminalreporter.section("skipped, which fails in CI", red=True)
        for nodeid in _skipped:
            terminalreporter.line(nodeid)
