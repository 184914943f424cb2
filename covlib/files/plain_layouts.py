"""Layouts anybody can make. Every file is found, at any depth; what it is follows from the folders above it::

    classes   CLASS/*.png; with PATIENT/ or PATIENT/SERIES/ below, with images/ and masks/ in each class or above all
    slices    image/*.png with class_mask/, infection_mask/, lung_mask/ (each optional) of equal file names
    images    *.png without classes
    cases     CASE/image.nii.gz with lung_mask.nii.gz, infection_mask.nii.gz (optional)
    case      one such CASE folder, or a single NIfTI file
    nifti     *.nii.gz, with NAME_lung_mask.nii.gz beside (optional); imagesTr/ with labelsTr/ (nnU-Net)
    dicom     folders of DICOM series, such as COLLECTION/PATIENT/STUDY/SERIES; DICOM films are read as images

train/, val/ and test/ may stand anywhere and are kept as the given split. Tables (.csv) in the folder, or metadata.csv,
patients.csv, manifest.csv above it, may give patients, labels and split.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from filecmp import cmp
from pathlib import Path

from covlib.errors import DataError
from covlib.files.dicom_kinds import SeriesFiles, series_of
from covlib.files.folders import MASK_PARTS, Entry, Spec, Tree, mask_name, no_images, numbered, scan
from covlib.files.index import (
    Found,
    Item,
    assign_patients,
    patient_in_name,
    read_document,
)
from covlib.files.labels import canonical, class_names, is_class, label_from_name
from covlib.files.names import find_part, is_nifti, stem
from covlib.files.pairing import add_masks

KINDS = ("classes", "slices", "images", "cases", "case", "nifti", "dicom")
KNOWN = ("CLASS/*.png; images/ with masks/ or lung_mask/, infection_mask/, class_mask/; train/, val/, test/ above or "
         "below classes; CASE/image.nii.gz; *.nii.gz; nnU-Net's imagesTr/ and labelsTr/; folders of DICOM series or "
         "films; the registered sources' own layouts")
_SERIES = re.compile(r"(?i)^(sr|se|ser|series|scan|study|st)[-_ ]?\d+$")


def case(root: Path) -> Found | None:
    """One case folder, or one NIfTI file."""
    if not (is_nifti(root) if root.is_file() else find_part(root, "image")):
        return None
    name = stem(root) if root.is_file() else root.name
    return _labelled(Found("case", root.parent, [Item(name, root, label=label_from_name(name))], True))


def read(root: Path, spec: Spec) -> Found:
    """Understand a folder by what lies in it; DataError where nothing in it can be read."""
    if spec.name in ("", "case") and (found := case(root)):
        return found
    tree = scan(root, spec)
    kind = _chosen_kind(tree, spec)
    if kind is None:
        raise no_images(root, KNOWN)
    notes = tree.notes
    for other in {e.kind for e in tree.entries} - {kind}:
        those = [e for e in tree.entries if e.kind == other]
        notes.append(f"{len(those)} {_WORD[other]} beside the {_WORD[kind]} are left out (--layout {_BY_KIND[other]} "
                     "reads them instead)")
        tree.skipped |= {e.path: f"{_WORD[kind]} are read here, no {_WORD[other]}" for e in those}
    entries = [e for e in tree.entries if e.kind == kind]
    series: dict[Path, SeriesFiles] = {}
    if kind == "dicom":
        entries, series = _of_dicom(entries, tree)
        if not entries:
            raise DataError(f"{root}: its DICOM files hold no images: {'; '.join(sorted(set(tree.skipped.values())))}")
    found = _built(root, entries, series, tree, spec, notes)
    found.left_out |= tree.skipped
    return found


_WORD = {"image": "images", "nifti": "NIfTI files", "dicom": "DICOM files"}
_BY_KIND = {"image": "images", "nifti": "nifti", "dicom": "dicom"}


def _chosen_kind(tree: Tree, spec: Spec) -> str | None:
    """What is read where several kinds lie: volumes, unless they are a few beside many images."""
    counts = Counter(e.kind for e in tree.entries)
    asked = next((kind for kind, names in {"image": ("classes", "slices", "images"), "nifti": ("nifti", "cases"),
                                           "dicom": ("dicom",)}.items() if spec.name in names), None)
    if asked:
        return asked if counts[asked] else None
    for kind in ("nifti", "dicom"):
        if counts[kind] and 5 * counts[kind] >= counts["image"]:
            return kind
    return "image" if counts["image"] else None


def _of_dicom(entries: list[Entry], tree: Tree) -> tuple[list[Entry], dict[Path, SeriesFiles]]:
    """Series as one entry each (their folder), films as they are; what is neither is skipped with its reason."""
    folders: dict[Path, list[Entry]] = defaultdict(list)
    for entry in entries:
        folders[entry.path.parent].append(entry)
    kept: list[Entry] = []
    series: dict[Path, SeriesFiles] = {}
    for folder, inside in folders.items():
        for one in series_of([e.path for e in inside]):
            if one.why:
                tree.skipped |= dict.fromkeys(one.files, one.why)
            elif one.film:
                kept += [e for e in inside if e.path in set(one.files)]
            else:
                place = folder / f"{one.patient}_{one.uid}" if one.one_of_several else folder
                first = next(e for e in inside if e.path == one.files[0])
                if first.part in MASK_PARTS:
                    tree.skipped |= dict.fromkeys(one.files, "a DICOM series in a folder of masks; NIfTI is read there")
                    continue
                free = (*first.free, one.uid) if one.one_of_several else first.free
                kept.append(Entry(place, "dicom", first.split, first.part, free, ""))
                series[place] = one
    return kept, series


# ---- from entries to items -------------------------------------------------------------------------------------------


def _built(root: Path, entries: list[Entry], series: dict[Path, SeriesFiles], tree: Tree, spec: Spec,
           notes: list[str]) -> Found:
    document = read_document(root / "dataset.json")
    if not series:
        entries = _named(entries, tree, document)
    images = [e for e in entries if e.part in ("", "images")]
    masks = [e for e in entries if e.part in MASK_PARTS]
    volumes = entries[0].kind == "nifti" and not _display_grey(document) or bool(series)
    if not images:
        _complain_of_masks(root, masks)
    if series and (films := [e for e in images if e.path not in series]):
        tree.skipped |= {e.path: "a film or a secondary capture among series" for e in films}
        images = [e for e in images if e.path in series]
    if not spec.levels:
        images = _even(images, series, tree)
    levels = _levels(images, volumes, spec)
    images = _in_levels(images, levels, tree, volumes)
    items = _items(root, images, levels, series, volumes, spec, notes)
    add_masks(root, items, images, masks, volumes, document, tree, notes)
    _complain_of_empty_classes(root, images, levels, tree)
    home = root.parent if len(items) == 1 and items[0].path == root else root
    found = Found(_kind(items, images, series, volumes, levels), home, items, volumes, notes)
    if volumes:
        return _labelled(found)
    return assign_patients(found, patient_in_name)


def _named(entries: list[Entry], tree: Tree, document: dict) -> list[Entry]:
    """The entries with what their own names say: masks beside their images, further channels, names without number."""
    by_folder: dict[Path, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_folder[entry.path.parent].append(entry)
    out: list[Entry] = []
    listed = document.get("channel_names") or document.get("modality")
    channels = len(listed) if isinstance(listed, dict | list) else 0
    for inside in by_folder.values():
        keys = {e.key for e in inside if e.key}
        alone = sum(e.key == "" and e.part == "images" for e in inside) == 1 and not any(
            e.key and mask_name(e.key) is None for e in inside)
        for e in inside:
            if e.key == "" and e.part == "images" and not alone:
                e = Entry(e.path, e.kind, e.split, "", e.free, stem(e.path))
            named = mask_name(e.key) if e.key and e.part in ("", "images") else None
            channel = re.fullmatch(r"(.+)_(\d{4})", e.key) if e.part == "images" and e.split else None
            if named and (named[0] in keys or (named[2] and not e.part)):
                e = Entry(e.path, e.kind, e.split, named[1], e.free, named[0])
            elif channel and channel[2] != "0000" and (channels > 1 or f"{channel[1]}_0000" in keys):
                tree.skipped[e.path] = "a further channel; the first one (_0000) is read"
                continue
            elif channel and channel[2] == "0000":
                e = Entry(e.path, e.kind, e.split, e.part, e.free, channel[1])
            out.append(e)
    return out


def _display_grey(document: dict) -> bool:
    """Whether a dataset.json says that its images hold display grey, no HU."""
    channels = document.get("channel_names") or document.get("modality")
    first = str(next(iter(channels.values()), "CT")) if isinstance(channels, dict) and channels else "CT"
    return first.lower() in ("grey", "gray", "x-ray", "xray", "cr", "dx", "png")


def _complain_of_masks(root: Path, masks: list[Entry]) -> None:
    folder = masks[0].path.parent if masks else root
    wanted = "NAME.nii.gz" if masks and masks[0].kind == "nifti" else "an image"
    raise DataError(f"{folder}: holds masks but no images; {wanted} is wanted beside each mask such as "
                    f"{masks[0].path.name if masks else 'NAME_lung_mask'}")


# ---- classes, patients, series ---------------------------------------------------------------------------------------


def _even(images: list[Entry], series: dict[Path, SeriesFiles], tree: Tree) -> list[Entry]:
    """The images with their class at one level: of those that lie deeper than others the folders above the class are
    dropped. A copy of the set within itself is left out."""
    at = [next((j for j, name in enumerate(e.free) if is_class(name)), None) for e in images]
    if len(set(at)) < 2 or None in at:
        return images
    first = min(a for a in at if a is not None)
    even = [replace(e, free=e.free[:first] + e.free[a:]) for e, a in zip(images, at) if a is not None]
    files = lambda e: series[e.path].files if e.path in series else (e.path,)  # a series' path may be but a name
    same = lambda e: (e.split, e.free, e.path.name, tuple((p.name, p.stat().st_size) for p in files(e)))
    there = {same(e): e for e, a in zip(even, at) if a == first}
    copies, left = {}, []
    for e, a in zip(even, at):
        other = there.get(same(e)) if a != first else None
        if other and all(cmp(p, q, shallow=False) for p, q in zip(files(e), files(other), strict=True)):
            copies |= dict(zip(files(e), files(other), strict=True))
        else:
            left.append(e)
    if copies:
        copy, of = next(iter(copies.items()))
        tree.notes.append(f"{len(copies)} files are left out as copies, such as {copy.relative_to(tree.root)} of "
                          f"{of.relative_to(tree.root)}")
        tree.skipped |= {path: "a copy of a file that lies higher" for path in copies}
    return left


def _levels(images: list[Entry], volumes: bool, spec: Spec) -> list[str]:
    """What the folders of no known meaning are, from the outside inwards: "set" (the same for all), "class", "patient",
    "class patient" (a name states both), "series", "any"."""
    frees = [(*e.free, e.key) if volumes and e.key else e.free for e in images]  # the last is the volume itself
    depth = max(map(len, frees))
    names = [{f[j] for f in frees if len(f) > j} for j in range(depth)]
    if spec.levels:
        return [*spec.levels, *["series"] * depth][:depth]
    unit = 1 if volumes else 0
    least = min(map(len, frees))
    asked = {name for name, meant in spec.names.items()}
    states = lambda name: is_class(name) or name.lower() in asked
    known = [len({canonical(n) for n in level if states(n)}) for level in names]
    best = max(range(depth), key=lambda j: (known[j], -j), default=0) if depth else 0
    levels = ["any"] * depth
    lead = 0
    while lead < least - unit and len(names[lead]) == 1 and not (known[lead] and lead == best):
        levels[lead], lead = "set", lead + 1
    if depth and known[best] and best < depth - unit:
        several = Counter(canonical(n) for n in names[best]).most_common(1)[0][1] > 1
        levels[best] = "class patient" if several and best == depth - 1 and numbered(names[best]) else "class"
    elif not volumes and lead < depth and len(names[lead]) > 1 and not numbered(names[lead]) and (
            2 * sum(len(f) > lead for f in frees) >= len(frees)):
        levels[lead] = "class"
    rest = [j for j in range(lead, depth) if levels[j] == "any" and not (known[best] and all(map(states, names[j])))]
    after = [j for j in rest if not any("class" in level for level in levels[j:])] or rest
    for j in rest:
        first = j == after[0] and "class patient" not in levels
        levels[j] = "patient" if first and not (not volumes and all(map(_SERIES.match, names[j]))) else (
            "series" if j in after else "any")
    return levels


def _in_levels(images: list[Entry], levels: list[str], tree: Tree, volumes: bool) -> list[Entry]:
    """The images that lie in a class folder, where there are classes."""
    at = next((j for j, level in enumerate(levels) if "class" in level), None)
    if at is None or volumes:
        return images
    outside = [e for e in images if len(e.free) <= at]
    tree.skipped |= {e.path: "lies outside the class folders" for e in outside}
    return [e for e in images if len(e.free) > at]


def _items(root: Path, images: list[Entry], levels: list[str], series: dict[Path, SeriesFiles], volumes: bool,
           spec: Spec, notes: list[str]) -> list[Item]:
    at = next((j for j, level in enumerate(levels) if "class" in level), None)
    folders = list(dict.fromkeys(e.free[at] for e in images if at is not None and len(e.free) > at))
    classes = {f: spec.names.get(f.lower(), c) for f, c in class_names(folders).items()}
    lead = sum(level == "set" for level in levels)
    items = []
    for e in images:
        free = e.free[lead:]
        told = [re.sub(r"^(\d{6})_\d\d_\d\d$", r"\1", n)  # DeepLesion's PATIENT_STUDY_SERIES
                for n, level in zip(e.free, levels) if level in ("patient", "class patient")]
        folder = e.free[at] if at is not None and len(e.free) > at else None
        if volumes:
            inner = tuple(n for n, level in zip(free, levels[lead:]) if level in ("patient", "series"))
            item = _volume(e, inner, series.get(e.path))
            item.label = classes[folder] if folder is not None else item.label
        else:
            item = Item("/".join((*free, e.key or "image")), e.path, told[0] if told else "")
            item.label = classes[folder] if folder is not None else None
        item.written, item.split = folder or "", e.split
        items.append(item)
    _unique(root, items, images)
    _count_apart(items, images, levels, at, notes)
    _say_levels(images, levels, volumes, notes)
    _say_modalities(images, notes)
    return items


def _volume(e: Entry, free: tuple[str, ...], one: SeriesFiles | None) -> Item:
    """A case folder, a NIfTI file, or a DICOM series; ``free``: its folders of patients and series."""
    if one is not None and one.one_of_several and one.patient:
        return Item(f"{one.patient}_{one.uid}", e.path.parent, one.patient, label_from_name(e.path.parent.name),
                    files=one.files, series=one.uid)
    if one is not None:
        inner = free or (e.path.name,)
        patient = one.patient if one.patient in e.free and len(e.free) > 1 else inner[0] if len(inner) > 1 else ""
        name = "_".join((patient or inner[0], inner[-1]) if len(inner) > 1 else inner)
        folder = e.path.parent if one.one_of_several else e.path
        return Item(name, folder, patient, label_from_name(inner[0]), files=one.files,
                    series=one.uid if one.one_of_several else "")
    if e.key:
        return Item(e.key, e.path, free[0] if free else "", label_from_name(e.key))
    place = e.path.parent if stem(e.path).lower() == "image" else e.path
    return Item(e.path.parent.name, place, free[0] if len(free) > 1 else "", label_from_name(e.path.parent.name),
                files=(e.path,))


def _unique(root: Path, items: list[Item], images: list[Entry]) -> None:
    """Names that occur twice get the part of the split, their folders, their ending, then their path into them."""
    ending = lambda e: e.path.suffix if e.path.is_file() else ""
    placed = lambda e: "/".join((*e.free, e.key)).strip("/")
    for longer in (lambda i, e: f"{e.split}/{i.name}" if e.split else i.name,
                   lambda i, e: i.name if i.name.startswith("/".join(e.free)) else placed(e),
                   lambda i, e: i.name + ending(e), lambda i, e: f"{e.path.relative_to(root).as_posix()}/{i.series}"):
        times = Counter(i.name for i in items)
        for item, e in zip(items, images):
            if times[item.name] > 1:
                item.name = longer(item, e).rstrip("/")


def _count_apart(items: list[Item], images: list[Entry], levels: list[str], at: int | None, notes: list[str]) -> None:
    """"patient1" of one class is another person than "patient1" of the next where each class numbers its own."""
    if at is None:
        return
    homes: dict[str, set[str]] = defaultdict(set)
    for item, e in zip(items, images):
        if item.patient:
            homes[item.patient].add(e.free[at])
    twice = {p for p, places in homes.items() if len(places) > 1 and re.fullmatch(r"(?i)[a-z]*[-_ ]?\d{1,4}", p)}
    for item, e in zip(items, images):
        if item.patient in twice:
            item.patient = f"{e.free[at]}/{item.patient}"
    if twice:
        notes.append(f"{len(twice)} numbers of patients, such as {min(twice)}, occur in several class folders and "
                     "count as different people (a table with the columns file,patient says otherwise)")


def _say_levels(images: list[Entry], levels: list[str], volumes: bool, notes: list[str]) -> None:
    """One line where the folders could be read in another way too."""
    shown = [level.upper().replace(" ", "-AND-") for level in levels if level != "set"]
    first = next((e.free for e in images if len(e.free) == len(levels)), ())
    if not shown or volumes or shown in (["CLASS"], ["CLASS", "PATIENT"]) and is_class(first[levels.index("class")]):
        return
    other = "class" if "CLASS" not in shown else "patient"
    notes.append(f"folders such as {'/'.join(first)} are read as {'/'.join([*['SET'] * levels.count('set'), *shown])}; "
                 f"if they are something else, say so: --layout {other}")


def _say_modalities(images: list[Entry], notes: list[str]) -> None:
    """One line where folders of CT and of X-rays are read as one set."""
    kinds = "cts?([-_ ](scans?|images?|slices?))?", "(x[-_ ]?rays?|cxrs?|radiographs?)([-_ ]images?)?"
    seen = [next((p.name for e in images for p in e.path.parents if re.fullmatch(f"(?i){kind}", p.name)), "")
            for kind in kinds]
    if all(seen):
        notes.append(f"folders of CT ({seen[0]}) and of X-rays ({seen[1]}) are read as one set; to leave one out, say: "
                     f"--layout {seen[1]}=skip")


# ---- what comes of it ------------------------------------------------------------------------------------------------


def _complain_of_empty_classes(root: Path, images: list[Entry], levels: list[str], tree: Tree) -> None:
    """DataError for a folder beside the classes that is called like one and holds no image."""
    at = next((j for j, level in enumerate(levels) if "class" in level), None)
    if at is None:
        return
    homes = {_ancestor(e, at): e for e in images if len(e.free) > at}
    for home in {h.parent for h in homes if root in h.parents}:  # never beside the data set
        for folder in sorted(p for p in home.iterdir() if p.is_dir() and is_class(p.name)):
            if not any(folder in e.path.parents for e in tree.entries):
                inside = sorted({p.suffix for p in folder.rglob("*") if p.is_file()})
                there = f" that is read (but {', '.join(inside)})" if inside else ""
                raise DataError(f"{folder}: class folder holds no image{there}; put PNG, JPEG or TIFF files there or "
                                "remove it")


def _ancestor(e: Entry, at: int) -> Path:
    """The folder above an entry that is its free folder number ``at``."""
    return next((p for p in e.path.parents if p.name == e.free[at]), e.path.parent)


def _kind(items: list[Item], images: list[Entry], series: dict, volumes: bool, levels: Iterable[str]) -> str:
    if series:
        return "dicom"
    if volumes:
        return "cases" if all(not e.key for e in images) else "nifti"
    if any("class" in level for level in levels):
        return "classes"
    masked = any(i.lung or i.infection for i in items)
    return "slices" if masked or any(e.part == "images" for e in images) else "images"


def _labelled(found: Found) -> Found:
    """Patients and labels of volumes. Labels in a table outdo those of folders, and these those in names."""
    by_name = {id(item): item.label for item in found.items}
    for item in found.items:
        item.label = None
    assign_patients(found)
    guessed = 0
    for item in found.items:
        if item.label is None and by_name[id(item)]:
            item.label = by_name[id(item)]
            guessed += not item.written
            item.written = item.written or item.name
    if guessed:
        found.notes.append(f"labels of {guessed} cases are read from their names")
    return found

