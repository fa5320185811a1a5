"""Settings shared by all tests: the same examples every time, and notebooks compared by what they say."""

import os
import tempfile

import hypothesis
import pytest
from nbval.plugin import IPyNbFile

pytest_plugins = ["tests.webserver"]  # its fixture `server`

CACHE = tempfile.TemporaryDirectory()  # until the tests are over; their workers and notebooks share it
os.environ.setdefault("ROSE_KIT_CACHE", CACHE.name)
os.environ["ROSE_AS_COMMITTED"] = "1"  # for notebooks: what they say of their own parameters must hold

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Progress bars and warnings go to standard error, which says nothing about a notebook's results."""
    for notebook in {item.parent for item in items if isinstance(item.parent, IPyNbFile)}:
        notebook.skip_compare += ("stderr",)
