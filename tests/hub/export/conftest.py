import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_trace_records() -> Iterator[None]:
    """pytest keeps every log record, and torch's tracer writes tens of thousands of them: half of an export's time."""
    logger = logging.getLogger("torch.__trace")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)
