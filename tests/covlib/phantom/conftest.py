"""Small scans that several tests look at, made once."""

from functools import cache

import pytest

from covlib.phantom import generate


@cache
def _volume(number, label, modality="A"):
    return generate(number, label=label, modality=modality, shape=(48, 96, 96))


@pytest.fixture(scope="session")
def volume():
    """volume(number, label, modality="A") -> Case of 48x96x96 voxels."""
    return _volume
