"""Chapter 05's trainings, side by side.

The chapter trains two CoSinGANs and a twin, seven networks of one scale and six judges. None waits for another of its
group, and each is too small to keep two cores busy; on a CPU a group is dealt out to the cores, one thread each
(``covlib.parallel``). The numbers are those of one training after the other.
"""

from collections.abc import Callable
from functools import partial
from operator import call
from pathlib import Path

from torch import nn

from covbook.chapters import apart, game, leave
from covbook.chapters.cosingan.experiment import judge
from covbook.chapters.cosingan.rivals import LOSSES, RIVALS, train_rival
from covbook.chapters.cosingan.roles import Roles
from covlib.papers.cosingan import method as cosingan
from covlib.parallel import spread
from covlib.training.trained import weights_in

TWIN = "twin"  # modality 1's with the other discriminator
WORTH_A_PROCESS = 100  # training steps of a group; a process takes seconds to start


def worth(steps: int, device) -> bool:
    """Whether trainings of so many steps together are worth processes of their own."""
    return steps >= WORTH_A_PROCESS and apart(device)


def train(config, roles: Roles, out, *, seed: int = 0, device="auto", resume: bool = True,
          checkpoint=None) -> tuple[dict, dict]:
    """A CoSinGAN on the single slice of each modality, and modality 1's twin where ``config`` asks for one
    (``game.twin``), side by side.

    Args:
        checkpoint: weights of modality 1's (``out/checkpoints/cosingan.safetensors`` of an earlier run), or
            the run's folder; those of modality 2 are looked for beside them, in ``modality_2/checkpoints``, and trained
            where they are not there. There is no twin then.

    Returns:
        1, 2 and "twin" -> method, the same -> what ``fit`` returned (nothing where weights were given).
    """
    out, second = Path(out), None
    if checkpoint is not None:
        checkpoint = weights_in(checkpoint, "cosingan.safetensors")
        second = Path(checkpoint).resolve().parents[1] / "modality_2" / "checkpoints" / "cosingan.safetensors"
    given = {1: checkpoint, 2: second if second and second.is_file() else None}
    jobs = {1: (config, roles.singles[1], out), 2: (config, roles.singles[2], out / "modality_2")}
    if checkpoint is None and (other := game.twin(config)):
        jobs[TWIN] = (other, roles.singles[1], out / TWIN)
    trainings = {name: partial(cosingan.train, *job, seed=seed, device=device, checkpoint=given.get(name))
                 for name, job in jobs.items()}
    if worth(config.updates, device) and not any(given.values()):
        spread(leave, [(partial(training, resume=resume),) for training in trainings.values()])
        resume = True  # what they left in their folders is taken up, at once
    made = {name: training(resume=resume) for name, training in trainings.items()}
    return ({name: method for name, (method, _) in made.items()},
            {name: result for name, (_, result) in made.items() if result})


def train_alone(config, one, out, *, unet, sets: dict, seed: int = 0, device="auto",
                resume: bool = True) -> tuple[dict, dict, dict]:
    """Every training that waits for no more than CoSinGAN's U-Net: the rivals of Table 1, one loss at a time (Figs. 6
    and 7), and judges, in one group, so that no core waits for the longest.

    Args:
        unet: CoSinGAN's network "U", trained. sets: of the judges, as in ``train_judges``.

    Returns:
        ({rival of ``RIVALS``: (method, FitResult)}, {loss of ``LOSSES``, as shown: (method, FitResult)}, what
        ``train_judges`` returns). The rivals have CoSinGAN's number of updates, the trainings with one loss
        ``config.loss_epochs``; these log all four terms.
    """
    length, out, how = config.loss_epochs, Path(out), {"unet": unet, "seed": seed, "device": device}
    short = {"updates": length, "measure_all": True, "log_every": max(1, length // 60)}
    rivals = {name: partial(train_rival, name, config, one, out / "rivals" / name, **how) for name in RIVALS}
    losses = {shown: partial(train_rival, name, config, one, out / "losses" / name, **how, **short)
              for name, shown in LOSSES.items()}
    if worth(len(RIVALS) * config.updates + len(LOSSES) * length, device):
        leaving = [[partial(leave, partial(training, resume=resume)) for training in group.values()]
                   for group in (rivals, losses)]
        judging = _judging(config, sets, seed, device)
        found = spread(call, [(work,) for work in (*leaving[0][::-1], *judging, *leaving[1])])  # the longest first
        judges = dict(zip(sets, found[len(rivals) : len(rivals) + len(sets)], strict=True))
        resume = True
    else:
        judges = train_judges(config, sets, seed=seed, device=device)
    made = [{name: training(resume=resume) for name, training in group.items()} for group in (rivals, losses)]
    return *made, judges


def train_judges(config, sets: dict, *, seed: int = 0, device="auto") -> dict[str, nn.Module]:
    """Judges trained side by side.

    Args:
        sets: name -> ("enet" or "unet", images, conditions), the one that takes longest first.

    Returns:
        name -> what ``experiment.judge`` returns for it.
    """
    steps = sum(config.enet_steps if kind == "enet" else config.seg_unet_steps for kind, *_ in sets.values())
    work = [(training,) for training in _judging(config, sets, seed, device)]
    return dict(zip(sets, spread(call, work, None if worth(steps, device) else 1), strict=True))


def _judging(config, sets: dict, seed: int, device) -> list[Callable]:
    return [partial(judge, kind, config, images, masks, seed=seed, device=device)
            for kind, images, masks in sets.values()]
