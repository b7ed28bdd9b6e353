"""Without transformers the parity tests are skipped, and the run's last lines say that nothing was compared."""

import importlib.metadata

import pytest

WANTED = "4.57.6"


def installed() -> str | None:
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return None


NOT_COMPARED = (
    f"not compared: transformers is {installed() or 'not installed'}, and parity is with {WANTED}; "
    "pip install -r tests/parity/requirements.txt in an environment of its own"
)


@pytest.fixture(scope="session", autouse=True)
def _transformers() -> None:
    if installed() != WANTED:
        pytest.skip(NOT_COMPARED)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "tests/parity/" in report.nodeid]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} parity tests skipped: {NOT_COMPARED}")
