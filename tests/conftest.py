"""What every test shares: two Hypothesis profiles, and what becomes of tests that need a GPU.

    python -m pytest                 the quick profile: few cases, the same ones each time
    python -m pytest --thorough      many cases, new ones each time; a failure prints how to run it again

Tests marked `gpu` are skipped where there is no GPU, and counted at the end.
"""

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick", max_examples=6, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile(
    "thorough", max_examples=100, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)

NO_GPU = "needs a CUDA device, and this machine has none"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="draw many new cases for each claim, not a few fixed ones")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # the tests' tensors are tiny: a second thread is mostly waited for
    settings.load_profile("thorough" if config.getoption("--thorough") else "quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", ())
    skipped = [report for report in reports if "gpu" in getattr(report, "keywords", ())]  # a skipped module has none
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} GPU tests skipped: each {NO_GPU}")
