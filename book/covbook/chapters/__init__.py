"""What single chapters need beside the notebook.

Of each paper's chapter there is one ``prepare(config, data, seed)``, which loads the data and deals the patients their
roles, and one ``train(config, roles, out, seed=, device=, resume=, checkpoint=)``. The notebook, ``covlib train`` and
the studies call those two.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def trained_once(place: Path, made_of: dict, train: Callable[[str], Any], empty: Callable[[], Any],
                 networks: Callable[[Any], Mapping], device="auto") -> Any:
    """What is trained once for all arms that share a folder: ``train(key)`` by the first, which leaves its weights in
    ``place``-key.safetensors; by the others ``empty()``, filled from there. Two processes that meet train it twice,
    each for itself, to the same weights.

    Args:
        made_of: settings, seed and data that the weights follow from, ready for JSON; ``key`` is a hash of them.
        networks: of what is trained, name -> network, those that are kept.
    """
    from covlib.training.checkpoints import load_weights, save_weights
    from covlib.training.devices import resolve_device

    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    file = place.with_name(f"{place.name}-{key}.safetensors")
    if not file.is_file():
        made = train(key)
        save_weights(file, networks(made), {"key": key})
        return made
    made = empty()
    load_weights(file, networks(made), {"key": key})
    for net in networks(made).values():
        net.to(resolve_device(device)).eval()
    return made


def apart(device) -> bool:
    """Whether small trainings may go to processes of one thread each: on a CPU, where their weights are the same on one
    core and many, and not in a job of several processes (``covlib train``), which share each training.

    Args:
        device: as ``resolve_device`` takes it.
    """
    import torch

    from covlib.training.devices import resolve_device

    return resolve_device(device).type == "cpu" and not torch.distributed.is_initialized()


def leave(training: Callable, *given) -> None:
    """``training(*given)`` in a process of its own (``covlib.parallel.spread``), for what it leaves in its folder:
    networks with spectral norm do not travel. What the library warns of is said once, by the process that deals out the
    work and takes up what was left."""
    logger, silent = logging.getLogger("covlib"), logging.NullHandler()
    logger.addHandler(silent)
    try:
        training(*given)
    finally:
        logger.removeHandler(silent)  # with one core this is the process that deals out


def studies_of_tables(paper: str, chapter: str, titles: dict[int, str], arms: Callable, run: Callable,
                      config: str) -> list:
    """A ``covbook.studies.Study`` for each of a paper's tables: "<paper>-table1" and so on.

    Args:
        titles: table -> title. arms: table -> {arm: settings}. config: "module:class" of the settings.
        run: (table, arm, profile=, data=, seed=, device=, out=, overrides=) -> metric -> value.
    """
    from covbook.studies import Arm, Study

    def listed(table: int):
        return lambda profile: [Arm(name, settings) for name, settings in arms(table).items()]

    def runner(table: int):
        def run_arm(arm: Arm, *, profile, data, seed, device, out, overrides=None) -> dict[str, float]:
            return run(table, arm, profile=profile, data=data, seed=seed, device=device, out=out, overrides=overrides)

        return run_arm

    return [Study(f"{paper}-table{table}", chapter, title, listed(table), runner(table), config,
                  f"table{table}_{{arm}}_{{metric}}") for table, title in titles.items()]
