"""Slices with infection masks, and slices without any, from folders."""

from covlib.data.label_maps import Paired, from_slices


def load_infected(data="phantom", *, size: int, patients: int, per_patient: int, crop: bool = False, seed: int = 0,
                  window: tuple[float, float] = (-600, 1500)) -> Paired:
    """All slices with infection, ``size`` pixels a side, with their maps.

    Args:
        data: "phantom", a folder of slices with masks or of volumes, or a registered source. Of a folder with several
            classes those labelled COVID-19 are taken.
        patients: how many virtual patients are drawn. per_patient: at most so many slices of each.
        crop: cut slices to their patient's lungs. window: (level, width) in HU; display images are taken as they are.

    Raises:
        DataError: no lesion masks, no infection in any slice, masks that do not fit.
    """
    from covlib.data.crops import crop_to_lungs
    from covlib.files import layouts

    if str(data) == "phantom":
        drawn = {"n_patients": patients, "labels": ("covid",)}
    else:
        drawn = {"classes": ("covid",)} if "covid" in layouts.find(data).classes() else {}
    larger = 2 if crop else 1  # so that the cut-out is not blown up
    slices = layouts.load_slices(data, size=larger * size, need=("lung", "infection"), seed=seed, window=window,
                                 per_patient=per_patient, **drawn)
    return from_slices(crop_to_lungs(slices, size) if crop else slices).infected()
