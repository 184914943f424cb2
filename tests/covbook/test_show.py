"""The source that a chapter shows: functions, methods and modules, with and without their docstrings."""

import json

import pytest

from covbook.show import source
from covlib.errors import ConfigError
from covlib.papers.dcgan import DCGAN, losses


def test_functions_methods_and_modules_are_shown_by_name_and_file():
    method, module = source(DCGAN.training_step), source(losses)
    assert method.name == "covlib.papers.dcgan.method.DCGAN.training_step" and method.code.startswith("def training")
    assert (module.name, module.file) == ("covlib.papers.dcgan.losses", "covlib/papers/dcgan/losses.py")
    assert module.code.startswith('"""') and "def generator_loss" in module.code
    bare = source(losses, doc=False).code
    assert bare.startswith("import torch") and source(losses.generator_loss, doc=False).code.count("\n") == 2
    assert "<details" in module._repr_html_() and "open" not in source(losses, unfolded=False)._repr_html_()[:40]


@pytest.mark.parametrize("thing", [json.dumps, json, 3])
def test_what_is_not_of_the_library_is_refused(thing):
    with pytest.raises(ConfigError, match="is no function, class, method or module of covlib"):
        source(thing)
