"""Trainings in processes of their own: what they leave, and who says what the library warns of."""

import subprocess
import sys
from pathlib import Path

from covbook.chapters import leave
from covlib.parallel import spread


def test_trainings_leave_their_files_and_hand_nothing_back(tmp_path):
    jobs = [(Path.write_text, tmp_path / name, "weights") for name in "ab"]
    assert spread(leave, jobs, workers=2) == [None, None]
    assert [(tmp_path / name).read_text() for name in "ab"] == ["weights"] * 2


def test_a_training_warns_of_nothing_but_its_process_does_afterwards():
    code = ("import logging; from covbook.chapters import leave; warn = logging.getLogger('covlib.training').warning; "
            "leave(warn, 'within'); warn('after')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "after\n"
