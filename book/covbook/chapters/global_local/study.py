"""Tables II to V of chapter 04 as studies of arms that run apart (``covlib sweep``).

Nothing heavy is imported until an arm runs; what an arm is made of is in ``experiment``.
"""

from functools import lru_cache
from types import SimpleNamespace

from covbook.chapters import studies_of_tables
from covbook.chapters.global_local import METHODS, RIVALS
from covlib.errors import ConfigError

SHARES = (0, 10, 20, 30, 40, 50)  # per cent, Tables III and IV

ABLATIONS = {"full": {}, "no_desum": {"desum": "none"}, "desum_global": {"desum": "global"},
             "alpha_half": {"desum": "half"}, "no_dfm": {"dfm": "none"}, "dfm_d2": {"dfm": "d2"},
             "beta_half": {"dfm": "half"}, "discriminators_1": {"discriminators": 1},
             "discriminators_3": {"discriminators": 3}, "generators_1": {"generators": 1},
             "generators_3": {"generators": 3}}  # the rows of Table V
# Ours: what Section III-B can mean as well ("update D with the DFM"; images "randomly chosen").
READINGS = {"dfm_with_d": {"dfm_side": "discriminators"}, "d_sees_one": {"d_sees": "one"}}

TITLES = {2: "Table II: image quality of five methods", 3: "Table III: real slices replaced by synthetic ones",
          4: "Table IV: synthetic slices added to real ones", 5: "Table V: parts of the method left out or changed"}


def arms(table: int) -> dict[str, dict]:
    """Arm -> settings of Table II to V (2 to 5). An arm's name and a metric's make the id of the paper's number:
    ``table<table>_<arm>_<metric>``. Beyond the paper's rows: "painted" wherever rivals stand, "real" (Table II), a
    U-Net trained on synthetic slices alone (Table III, 100 %), and ``READINGS`` (Table V)."""
    if table == 2:
        return {name: {"method": name} for name in (*METHODS, "painted", "real")}
    if table == 3:
        own = {f"replace_{share}": {"share": share, "method": "global_local"} for share in (*SHARES, 100)}
        others = {f"replace_50_{name}": {"share": 50, "method": name} for name in (*RIVALS, "painted")}
        return own | others | {"replace_100_painted": {"share": 100, "method": "painted"}}
    if table == 4:
        return {f"add_{share}": {"share": share, "method": "global_local"} for share in SHARES}
    if table == 5:
        return {name: dict(changes) for name, changes in (ABLATIONS | READINGS).items()}
    raise ConfigError(f"table: {table} is not one of 2, 3, 4 and 5")


def studies() -> list:
    """Tables II to V as ``covbook.studies.Study``: "global_local-table2" to "global_local-table5"."""
    return studies_of_tables("global_local", "04_global_local", TITLES, arms, table_arm,
                             "covlib.papers.global_local.method:Config")


# Fields that ``experiment.load`` reads.
READ = ("image_size", "patients", "slices_per_patient", "cap_real", "crop_to_lungs")


@lru_cache(maxsize=1)
def _slices(image_size: int, patients: int, slices_per_patient: int, cap_real: bool, crop_to_lungs: bool, data: str,
            seed: int):
    """``experiment.load``, kept for the next arm of a sweep: the arms of one seed all take the same slices."""
    from covbook.chapters.global_local import experiment

    return experiment.load(SimpleNamespace(image_size=image_size, patients=patients, crop_to_lungs=crop_to_lungs,
                                           cap_real=cap_real, slices_per_patient=slices_per_patient), data, seed)


def table_arm(table: int, arm, *, profile: str, data, seed: int, device, out,
              overrides: dict | None = None) -> dict[str, float]:
    """One arm of one table: everything from the data to the numbers; see ``arms`` for what there is."""
    from covbook.chapters.global_local import experiment
    from covlib.papers.global_local.method import Config

    settings = arm.settings
    changes = settings if table == 5 else {}
    config = Config.for_profile(profile, {**(overrides or {}), **changes})
    roles = experiment.prepare(config, _slices(*(getattr(config, name) for name in READ), str(data), seed), seed)
    make = lambda name: experiment.trained(name, experiment.method_config(name, config, profile), roles, out, seed=seed,
                                           device=device, copies=config.copies)
    if table == 2:
        return quality_arm(config, roles, settings["method"], make, seed=seed, device=device)
    if table == 5:
        method, score = make("global_local"), {}
        score |= quality_arm(config, roles, "global_local", lambda name: method, seed=seed, device=device)
        found = segmentation_arm(config, roles, 0.5, lambda: method, added=False, seed=seed, device=device)
        return {"fid": score["complete_fid"], "psnr": score["complete_psnr"], "lung_only_fid": score["lung_only_fid"],
                "inside_psnr": score["inside_psnr"], "beta": mean_beta(method, roles),
                **{name.replace("infection_", ""): value for name, value in found.items()
                   if name.startswith("infection_dice")}}
    return segmentation_arm(config, roles, settings["share"] / 100, lambda: make(settings["method"]), added=table == 4,
                            seed=seed, device=device)


def quality_arm(config, roles, name: str, make, *, seed: int, device) -> dict[str, float]:
    """A row of Table II as {"complete_fid", ..., "inside_rmse"}; "real" has the real slices of the same maps in the
    synthetic ones' place: what "fid_others" cannot fall below."""
    from covbook.chapters.global_local import experiment
    from covlib.judges.features import get_extractor
    from covlib.training.devices import resolve_device

    real, maps = roles.test.images, roles.test.maps
    extractor = get_extractor(config.extractor, n=len(real), device=resolve_device(device))
    made = real if name == "real" else experiment.synthesize(make(name), maps, seed)
    found = experiment.image_quality(real, made, maps, extractor, roles.seg_test)
    flat = {f"{category}_{metric}": value for category, values in found.items() for metric, value in values.items()}
    return {key: value for key, value in flat.items() if name != "real" or key.endswith("others")}


def segmentation_arm(config, roles, share: float, make, *, added: bool, seed: int, device) -> dict[str, float]:
    """A row of Table III (``added`` False) or IV: slices chosen, U-Net trained on them, scored on ``roles.seg_test``.

    ``make()`` gives the trained method; it is not asked for where the share is 0. Beside the scores of all slices
    together: over the paper's folds of augmented copies, where the config has folds, and over patients (``folds``).
    """
    from covbook.chapters.global_local import experiment, folds

    images, maps = roles.test.images, roles.test.maps
    if share and added:
        around, new_maps = experiment.new_conditions(roles.test, len(maps), seed)
        made = experiment.complete_slices(make(), around, new_maps, seed)
        images, maps = experiment.add(images, maps, made, new_maps, share, seed)
    elif share:
        images, _ = experiment.replace(images, experiment.complete_slices(make(), images, maps, seed), share, seed)
    net = experiment.train_unet(config, images, maps, seed, device)
    return folds.row(net, roles.seg_test, folds=config.folds, copies=config.test_copies, seed=seed)


def mean_beta(method, roles) -> float:
    """D2's weight in Eq. 4, mean over the test slices: whether it ran to an end. NaN where no net computes one."""
    from covbook.chapters.global_local import networks

    if "DFM" not in method.networks:
        return float("nan")
    data = roles.test.training_data()
    return float(networks.betas(method, data["image"], data["map"]).mean())
