"""From a place to arrays: "phantom", a folder in any layout we know, or a single volume."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from covlib import seeding
from covlib.data.case import Case, SliceSet
from covlib.data.resize import resize_image, resize_mask
from covlib.errors import ConfigError, DataError
from covlib.files import plain_layouts
from covlib.files.folders import MEANINGS, Spec, files_under, is_system, meaning, parse_spec, why_unused
from covlib.files.greys import greys_of
from covlib.files.images import read_bytes
from covlib.files.index import Found, Item, digest, folders_in, read_datasheet
from covlib.files.labels import canonical, is_class, ordered
from covlib.files.names import find_part, list_folder
from covlib.files.pages import parted

NEEDS = ("labels", "lung", "infection")
PHANTOM_PATIENTS, PER_PATIENT = 40, 4
OWN: dict[str, Callable[[Path], Found | None]] = {}  # of single data sets, added by whoever knows them; tried first


# ---- what is there ---------------------------------------------------------------------------------------------------


def find(data) -> Found:
    """Understand a folder or a NIfTI file, without reading pixels.

    A folder that holds nothing but one folder stands for that folder. The layouts of registered public sets are known
    where ``covbook.datasets.own_layouts.make_known`` was called, as the chapters and the command line do.

    Args:
        data: a path; after "::" it may say how the folder is to be read, where it can be read in two ways: a layout's
            name, what its folders are from the outside inwards ("class/patient/series"), and what single folders or
            labels mean ("masks=infection", "group_a=covid", "old=skip"), with commas between.

    Raises:
        DataError: not there, not readable, empty, or no layout we know (they are listed).
        ConfigError: after "::" stands what is no layout.
    """
    place, spec = asked(data)
    try:
        if not place.exists():
            raise DataError(f"data: {str(data)!r} is neither 'phantom' nor a file or folder that is there")
        found = _understand(place.resolve(), spec)
    except PermissionError as error:
        raise DataError(f"{error.filename}: no permission to read it; grant read access (chmod -R u+rX) or give "
                        "another folder") from None
    _rename(found, spec)
    return parted(found)


def asked(data) -> tuple[Path, Spec]:
    """The path and what "::" and after it says."""
    path, _, text = (str(data), "", "") if Path(data).exists() else str(data).partition("::")
    return Path(path), parse_spec(text)


def _understand(root: Path, spec: Spec) -> Found:
    if root.is_file():
        found = plain_layouts.case(root)
        if found is None:
            raise DataError(f"{root}: one file must be a volume (.nii, .nii.gz); give a folder for anything else, and "
                            "unpack archives first")
        return found
    if spec.name not in ("", *OWN, *plain_layouts.KINDS):
        raise ConfigError(f"layout: {spec.name!r} is not known; known are {', '.join([*OWN, *plain_layouts.KINDS])}, "
                          "levels such as class/patient/series, and FOLDER=MEANING")
    if not spec.levels and spec.name not in plain_layouts.KINDS:
        for folder in _only_folders(root):
            for name, layout in OWN.items():
                if spec.name in ("", name) and (found := layout(folder)):
                    return found
        if spec.name:
            raise DataError(f"{root}: is not laid out as {spec.name}")
    return plain_layouts.read(_inner(root), spec)


def _only_folders(root: Path) -> Iterator[Path]:
    """The folder, and those inside it that are the only ones there."""
    while True:
        yield root
        folders = [f for f in folders_in(root) if not is_system(f)]
        if len(folders) != 1:
            return
        root = folders[0]


def _inner(root: Path) -> Path:
    """The folder that ``root`` stands for: it holds nothing else, and its name means nothing."""
    for folder in _only_folders(root):
        inside = [p for p in list_folder(folder) if not is_system(p)]
        if len(inside) != 1 or not inside[0].is_dir() or meaning(inside[0].name) or is_class(inside[0].name):
            return folder
    return root


def _rename(found: Found, spec: Spec) -> None:
    """Labels as ``--layout`` maps them, where it names labels and no folders."""
    for item in found.items:
        meant = spec.names.get(item.written.lower()) or spec.names.get((item.label or "").lower())
        if meant and meant not in MEANINGS:
            item.label = canonical(meant)


def account(found: Found, data) -> tuple[list[Path], dict[Path, str]]:
    """Every file under ``data``: those that are read (or belong to the set, as its datasheet does), and the others with
    the reason."""
    root = asked(data)[0].resolve()
    if root.is_file():
        return [root], {}
    used = set(found.tables) | {found.root / name for name in ("datasheet.json", "dataset.json")}
    for item in found.items:
        used |= {p for p in (item.lung, item.infection) if p} | set(item.files)
        if item.path.is_file():
            used.add(item.path)
        elif not item.files or find_part(item.path, "image"):
            parts = (find_part(item.path, part) for part in ("image", "lung_mask", "infection_mask"))
            used |= {p for p in parts if p} or {p for p in list_folder(item.path) if p.is_file()}
    files = list(files_under(root))
    there = {p.resolve(): p for p in files} if any(p.is_symlink() for p in files) else {p: p for p in files}
    read = [p for p in files if p in used or (p.is_symlink() and p.resolve() in used)]
    reading = set(read)
    return read, {p: found.left_out.get(p) or why_unused(p, root) for p in there.values() if p not in reading}


# ---- slices ----------------------------------------------------------------------------------------------------------


def load_slices(data, *, size: int, need=(), window=(-600, 1500), seed: int = 0, n_patients: int | None = None,
                per_patient: int | str | None = None, labels=("normal", "covid"), classes=None) -> SliceSet:
    """Slices or images of one size, in [-1, 1], padded to a square. Volumes are cut to the body first.

    Args:
        data: "phantom", a folder in any known layout, or a NIfTI file.
        size: pixels a side of the square result.
        need: what must be there: any of "labels", "lung", "infection". A lung mask that the source lacks is made
            classically (a note says so); labels and lesions cannot be made.
        window: (level, width) in HU for CT in HU. Display images are taken as they are.
        seed: which patients and slices are taken where ``n_patients`` or ``per_patient`` say fewer than all.
        n_patients: at most so many patients, evenly over the classes (virtual ones: 40 if None).
        per_patient: at most so many slices each (volumes and virtual patients: 4 if None; images: all if None).
            Volumes give axial slices evenly spaced over the lungs, or over the lesions where "labels" are needed and
            the case is a sick one with a lesion mask. "all": every image, and every slice of a volume.
        labels: kinds of virtual patients.
        classes: class names to keep in folders, in any spelling; all if None. Order is ours: COVID-19 last.

    Raises:
        DataError: something is missing, unreadable or wrong, named with its file. ConfigError: a bad argument.
    """
    _check_arguments(data, size, need, per_patient, n_patients)
    window = (float(window[0]), float(window[1]))
    every = isinstance(per_patient, str)  # "all"
    most = None if isinstance(per_patient, str) else per_patient
    if str(data) == "phantom":
        from covlib.phantom import phantom_slices

        return phantom_slices(n_patients or PHANTOM_PATIENTS, size=size, per_patient=most or PER_PATIENT,
                              seed=seed, labels=tuple(labels), window=window)
    found = find(data)
    items = _chosen(found, need, seed, n_patients, classes)
    if found.volumes:
        from covlib.files.slices import slices_of

        slices, items = slices_of(items, size, need, window, None if every else most or PER_PATIENT, found.root)
    else:
        items = _thinned(items, most, seed)
        slices = _images(items, size, need, window, bool(read_datasheet(found.root)))
    return _told(slices, items, found, window, data)


def _check_arguments(data, size, need, per_patient, n_patients) -> None:
    if isinstance(per_patient, str):
        if per_patient != "all" or str(data) == "phantom":
            raise ConfigError(f"per_patient: {per_patient!r}; a whole number from 1 is wanted, or 'all' where data are "
                              "files (a virtual patient has as many slices as one asks for)")
        per_patient = None
    unknown = set(need) - set(NEEDS)
    if isinstance(need, str) or unknown:
        raise ConfigError(f"need: {need!r}; a tuple of any of {', '.join(NEEDS)} is wanted")
    for name, value in (("size", size), ("per_patient", per_patient), ("n_patients", n_patients)):
        if value is not None and (not isinstance(value, int | np.integer) or value < 1):
            raise ConfigError(f"{name}: {value!r}; a whole number from 1 is wanted")


def _chosen(found: Found, need, seed: int, n_patients: int | None, classes) -> list[Item]:
    """The items wanted, in order; complains of what is needed and missing."""
    items = found.items
    if classes is not None:
        wanted = {canonical(c) for c in classes} | set(classes)
        items = [i for i in items if i.label in wanted]
        absent = {canonical(c) for c in classes} - {i.label for i in items}
        if absent:
            raise DataError(f"{found.root}: has no class {', '.join(sorted(absent))}; it has "
                            f"{', '.join(found.classes()) or 'none'}")
    _check_need(found, items, need)
    if n_patients is None:
        return items
    by_label = defaultdict(set)
    for item in items:
        by_label[item.label or ""].add(item.patient)
    queues = [[names[i] for i in seeding.rng(seed, "patients", label).permutation(len(names))]
              for label, names in sorted((k, sorted(v)) for k, v in by_label.items())]
    kept: set[str] = set()
    while len(kept) < n_patients and any(queues):  # class by class in turn
        for queue in queues:
            if queue and len(kept) < n_patients:
                kept.add(queue.pop())
    return [i for i in items if i.patient in kept]


def _check_need(found: Found, items: list[Item], need) -> None:
    if "labels" in need:
        bare = [i.name for i in items if i.label is None]
        have = {i.label for i in items} - {None}
        if bare or len(have) < 2:
            what = f"{len(bare)} items have no label (first: {bare[0]})" if bare else f"the only class is {have.pop()}"
            raise DataError(f"{found.root}: labels are needed, {what}; two classes are wanted: class folders, or "
                            "metadata.csv with the columns file,label")
    if "infection" in need:
        bare = [i for i in items if i.infection is None and not find_part(i.path, "infection_mask")]
        if bare:
            raise DataError(f"{found.root}: lesion masks are needed, {len(bare)} of {len(items)} items have none "
                            f"(first: {bare[0].name}); class_mask/ or infection_mask/ (images), infection_mask.nii.gz "
                            "(cases) is wanted")


def _thinned(items: list[Item], per_patient: int | None, seed: int) -> list[Item]:
    """At most ``per_patient`` images of each patient of each class, drawn by the seed."""
    if per_patient is None:
        return items
    mine = defaultdict(list)
    for index, item in enumerate(items):
        mine[item.patient, item.label].append(index)
    kept = []
    for (patient, _), index in mine.items():
        order = seeding.rng(seed, "slices", patient).permutation(len(index))[:per_patient]
        kept += [index[i] for i in order]
    return [items[i] for i in sorted(kept)]


def _images(items: list[Item], size: int, need, window, ours: bool) -> SliceSet:
    from covlib.data.lungs import lung_mask_grey

    out = np.empty((len(items), 1, size, size), np.float32)
    given = [part for part in ("lung", "infection") if all(getattr(i, part) for i in items)]
    made = "lung" in need and "lung" not in given
    masks = {part: np.zeros((len(items), size, size), np.uint8) for part in [*given, *["lung"] * made]}
    digests, greys = [], greys_of(items, window, ours)
    for k, item in enumerate(items):
        content = read_bytes(item.path)
        image = greys.image(item, content)
        digests.append(hashlib.sha256(content).digest())
        out[k, 0] = resize_image(image, size) * 2 - 1
        for part in given:
            path = getattr(item, part)
            content = read_bytes(path)
            masks[part][k] = resize_mask(greys.mask(part, item, image.shape, content), size)
            digests.append(hashlib.sha256(content).digest())
        if made:
            lesion = None if item.infection is None else greys.mask("infection", item, image.shape)
            masks["lung"][k] = resize_mask(lung_mask_grey(image, lesion), size)
    notes = greys.notes + ["lung masks are made by threshold and clean-up"] * made
    notes += [f"{part} masks are not used: {lacking} of {len(items)} images have none" for part in ("lung", "infection")
              if 0 < (lacking := sum(getattr(i, part) is None for i in items)) < len(items)]
    names = [item.name for item in items]
    return SliceSet(out, [item.patient for item in items], names, lung=masks.get("lung"),
                    infection=masks.get("infection"), fingerprint=digest(names, digests), notes=notes,
                    hu_window=window if greys.hu else None)


def _told(slices: SliceSet, items: list[Item], found: Found, window, data) -> SliceSet:
    """``slices`` with what the folder says of them; ``items``: the one that each slice came from."""
    kinds = [item.label for item in items]
    if all(kinds):
        slices.classes = ordered(set(kinds))
        slices.labels = np.array([slices.classes.index(kind) for kind in kinds], np.int64)
    if any(item.split for item in items):
        slices.given = [item.split for item in items]
    sheet = read_datasheet(found.root)
    slices.notes = [*found.notes, *slices.notes]
    if sheet:
        slices.synthetic = True
        slices.notes.append(f"synthetic images: {sheet.get('method', 'see the datasheet')}")
    shown = sheet.get("hu_window")
    slices.hu_window = window if found.volumes else slices.hu_window or (tuple(shown) if shown else None)
    slices.source = asked(data)[0].name or found.root.name
    return slices


# ---- cases -----------------------------------------------------------------------------------------------------------


def load_cases(data, *, need=(), seed: int = 0, n_patients: int | None = None, shape=None, labels=None,
               classes=None) -> Iterator[Case]:
    """Volumes one after another; only one is in memory at a time.

    Arguments as in ``load_slices``; ``shape`` (Z, Y, X) resamples (virtual patients are made in it). ``labels``: kinds
    of virtual patients, ("normal", "covid") if None. What is wrong with the folder as a whole is raised at once, what
    is wrong with one case when its turn comes.
    """
    _check_arguments(data, 1, need, None, n_patients)
    if str(data) == "phantom":
        return _phantom_cases(n_patients or PHANTOM_PATIENTS, seed, shape, tuple(labels or ("normal", "covid")))
    found = find(data)
    if not found.volumes:
        raise DataError(f"{found.root}: holds images ({found.kind}), volumes are needed: CASE/image.nii.gz, "
                        "*.nii.gz or DICOM")
    if any(item.plane is not None for item in found.items):
        raise DataError(f"{found.root}: holds {len(found.items)} unrelated slices, volumes are needed: "
                        "CASE/image.nii.gz, *.nii.gz or DICOM")
    items = _chosen(found, need, seed, n_patients, classes)
    return _cases(items, need, shape)


def _phantom_cases(n: int, seed: int, shape, labels) -> Iterator[Case]:
    from covlib.phantom import generate

    for number in range(n):
        yield generate(number, seed=seed, label=labels[number % len(labels)], shape=shape)


def _cases(items: list[Item], need, shape) -> Iterator[Case]:
    from covlib.data.lungs import lung_mask
    from covlib.data.volumes import resample
    from covlib.files.slices import read_item

    for item in items:
        case = read_item(item)
        if item.split:
            case.meta["split"] = item.split
        if "lung" in need and case.lung is None:
            case.lung = lung_mask(case.hu, case.spacing)
            case.meta["lung_made"] = "threshold and clean-up"
        yield case if shape is None else resample(case, shape)
