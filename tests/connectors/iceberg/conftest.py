"""A catalog of the test's own."""

from pathlib import Path

import pytest

from sessionize.connectors.iceberg import Catalog, open_catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(tmp_path)
