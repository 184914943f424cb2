"""The registered sets' own layouts, as every chapter has them."""

import pytest

from covbook.datasets import own_layouts


@pytest.fixture(autouse=True)
def _own_layouts():
    own_layouts.make_known()
