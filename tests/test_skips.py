"""In CI nothing may be skipped; see conftest.py beside this file."""

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py").read_text()
SKIPPED_TEST = "import pytest\n\ndef test_it():\n    pytest.skip('no such program')\n"
SKIPPED_MODULE = "import pytest\n\npytest.importorskip('no_such_module')\n"
EXPECTED_FAILURE = "import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    assert False\n"
PASSING_TEST = "def test_other():\n    pass\n"


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, *args: str
) -> pytest.RunResult:
    monkeypatch.setenv("CI", ci)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_passing=PASSING_TEST)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


@pytest.mark.parametrize(
    ("source", "workers"), [(SKIPPED_TEST, "0"), (SKIPPED_TEST, "1"), (SKIPPED_MODULE, "1")]
)
def test_a_skip_fails_the_run_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, workers: str
) -> None:
    pytester.makepyfile(test_skipping=source)
    result = run(pytester, monkeypatch, "true", "-n", workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skipped, which fails in CI*", "test_skipping.py*"])


@pytest.mark.parametrize("ci", ["", "false"])
def test_a_skip_is_fine_elsewhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str
) -> None:
    pytester.makepyfile(test_skipping=SKIPPED_TEST)
    assert run(pytester, monkeypatch, ci).ret == pytest.ExitCode.OK


def test_a_run_without_skips_passes_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_expected=EXPECTED_FAILURE)
    assert run(pytester, monkeypatch, "true").ret == pytest.ExitCode.OK
