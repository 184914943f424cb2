"""Chapter 05 above the method: roles, training sets, judges, rates over scans, arms, and the paper's own arithmetic."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scan_files import save_case

from covbook import report
from covbook.chapters.cosingan import MODELS, OURS, SET_NAMES, SETS, STATED, experiment, rivals, study, training
from covbook.chapters.cosingan import show as chapter
from covbook.chapters.cosingan.roles import JUDGES, Config, load, prepare
from covbook.runner import studies as runner_studies
from covlib import parallel
from covlib.data.label_maps import Paired
from covlib.errors import ConfigError, DataError
from covlib.judges import segmenters
from covlib.metrics import overlap
from covlib.metrics.intervals import student_t
from covlib.papers.cosingan.nets import resize_image
from covlib.papers.cosingan.slices import ternary
from covlib.seeding import torch_generator

CONFIG = dataclasses.replace(Config.for_profile("smoke"), scales=(32,), epochs_first=2, epochs_second=1,
                             unet_steps=2)


@pytest.fixture(scope="module")
def paired():
    """Sixteen patients with three slices each, eight of each modality, six of eight with infection."""
    n, maps = 48, np.zeros((48, 32, 32), np.uint8)
    rows, columns = np.ogrid[:32, :32]
    for k in range(n):
        for middle in (9, 22):
            maps[k][((rows - 16) / 11) ** 2 + ((columns - middle) / 6) ** 2 <= 1] = 1
        if k // 3 % 8 < 6 and k % 3:
            maps[k, 12:16 + k % 3, 6:10], maps[k, 18:20, 21:24] = 2, 3
    grey = torch.tensor([-0.2, -0.7, 0.1, 0.6])[torch.from_numpy(maps).long()][:, None]
    grey[n // 2:] += 0.2
    images = (grey + 0.05 * torch.randn(grey.shape, generator=torch_generator(0, "test"))).clamp(-1, 1)
    return Paired(images, torch.from_numpy(maps), [f"p{k // 3}" for k in range(n)], [f"s{k}" for k in range(n)],
                  fingerprint="abc")


@pytest.fixture(scope="module")
def modality():
    return np.repeat([1, 2], 24)


@pytest.fixture(scope="module")
def roles(paired, modality):
    return prepare(CONFIG, paired, 0, modality=modality)


class Bright:
    """A model that adds ``shift`` to the painted conditions, and on request noise: enough to see who was asked."""

    def __init__(self, shift):
        self.shift, self.networks = shift, {"G": torch.nn.Linear(1, 1)}

    def synthesize(self, masks, generator, randomise=False, **options):
        noise = 0.1 * torch.rand(masks.shape, generator=generator) if randomise else 0.0
        return masks.float() / 4 + self.shift + noise


# -- data -------------------------------------------------------------------------------------------------------------


def test_no_patient_is_on_both_sides_and_the_single_slices_are_training_slices(roles, paired):
    train, test = set(roles.train.patients), set(roles.test.patients)
    assert not train & test and len(train | test) == 16 and len(roles.train) + len(roles.test) == 48
    for m, one in roles.singles.items():
        place = roles.train.names.index(one.name)
        assert roles.train_modality[place] == m and torch.equal(one.image[0], roles.train.images[place])
        assert bool((one.condition == 2).any()) and int(one.condition.max()) == 2
    assert set(roles.test_modality) == {1, 2}
    again = prepare(CONFIG, paired, 0, modality=np.repeat([1, 2], 24))
    assert again.fingerprint == roles.fingerprint and again.train.names == roles.train.names


def test_virtual_patients_of_both_modalities_are_different_people():
    config = dataclasses.replace(CONFIG, patients=8, slices_per_patient=2)
    paired, modality = load(config, "phantom", 0)
    first, second = (set(np.asarray(paired.patients)[modality == m]) for m in (1, 2))
    assert not first & second and len(first | second) == 8
    ill = (paired.maps >= 2).flatten(1).any(1).numpy()
    assert 0 < ill.sum() < len(ill) and all(ill[modality == m].any() for m in (1, 2))
    assert paired.images.shape[1:] == (1, 32, 32)


def test_a_folder_s_modalities_go_by_the_brightness_of_healthy_lung(paired, tmp_path):
    from PIL import Image

    for name in ("image", "lung_mask", "class_mask"):
        (tmp_path / name).mkdir()
    for k in range(0, 48, 3):
        grey = ((paired.images[k + 1, 0].numpy() + 1) * 127.5).astype(np.uint8)
        maps = paired.maps[k + 1].numpy()
        for name, picture in (("image", grey), ("lung_mask", (maps > 0).astype(np.uint8)),
                              ("class_mask", np.maximum(maps, 1) - 1)):
            Image.fromarray(picture).save(tmp_path / name / f"{paired.patients[k]}.png")
    found, modality = load(dataclasses.replace(CONFIG, crop_to_lungs=False), tmp_path)
    expected = {f"p{k}": 1 if k < 8 else 2 for k in range(16)}
    assert dict(zip(found.names, modality.tolist())) == expected
    assert any("brightness" in note for note in found.notes)


# -- training sets ----------------------------------------------------------------------------------------------------


def test_training_sets_hold_what_their_names_say(roles):
    models, masks = {1: Bright(-0.5), 2: Bright(0.3)}, roles.conditions
    sets = {name: experiment.training_set(name, roles, {m: models[m] for m in experiment.needs(name)}, 1)
            for name in (*SETS, *OURS)}
    assert [len(images) for images, _ in sets.values()] == [1, len(masks), len(masks), 2, len(masks), len(masks),
                                                            len(masks)]
    for name, (images, found) in sets.items():
        assert images.shape == found.shape
        if len(found) > 2:
            assert torch.equal(found, masks), name
    assert torch.equal(sets["sin_ts"][0], roles.singles[1].image)
    assert torch.equal(sets["two_ts"][0][1:], roles.singles[2].image)
    assert torch.equal(sets["oc_ts"][0], roles.train.images)
    plain = masks.float() / 4
    assert torch.equal(sets["o_sts"][0], plain - 0.5)
    extra = sets["rc_sts"][0] - sets["o_sts"][0]
    assert 0 <= float(extra.min()) and 0.05 < float(extra.max()) <= 0.1
    share = (sets["if_sts"][0] - plain + 0.5) / 0.8  # of the second model, one number an image (Eq. 11)
    assert float((share.flatten(1).amax(1) - share.flatten(1).amin(1)).max()) < 1e-5
    means = share.flatten(1).mean(1)
    assert 0 <= float(means.min()) < 0.25 and 0.75 < float(means.max()) <= 1
    one, painted = roles.singles[1], sets["painted_sts"][0]
    for label in range(3):
        mean = float(one.image[one.condition == label].mean())
        assert torch.allclose(painted[masks == label], torch.tensor(mean), atol=1e-5)
    with pytest.raises(ConfigError, match="training set: 'all' is not one of sin_ts, o_sts"):
        experiment.training_set("all", roles, models)


def test_a_relabelled_crop_is_positive_only_where_infection_is_left(roles):
    images, masks = experiment.relabelled(roles, dataclasses.replace(CONFIG, crop_strong=0.3), 64, 0)
    labels = experiment.has_infection(masks)
    assert images.shape == masks.shape == (64, 1, 32, 32) and 0 < int(labels.sum()) < 64
    assert torch.equal(labels, torch.tensor([int(bool((m == 2).any())) for m in masks]))


# -- judges -----------------------------------------------------------------------------------------------------------


def test_judges_are_trained_alike_whatever_the_set(roles):
    for name in JUDGES:
        a = experiment.judge(name, CONFIG, roles.singles[1].image, roles.singles[1].condition, device="cpu")
        b = experiment.judge(name, CONFIG, roles.train.images, roles.conditions, device="cpu")
        fresh = segmenters.build(name, 3, width=CONFIG.enet_width if name == "enet" else CONFIG.seg_unet_width)
        assert [p.shape for p in a.parameters()] == [p.shape for p in b.parameters()] == [
            p.shape for p in fresh.parameters()]
        assert not torch.equal(a.last.weight, b.last.weight) and not a.training
        again = experiment.judge(name, CONFIG, roles.train.images, roles.conditions, device="cpu")
        assert all(torch.equal(p, q) for p, q in zip(b.parameters(), again.parameters()))


@pytest.mark.parametrize("name", JUDGES)
def test_judges_see_slices_at_256_of_512_pixels_and_answer_there(name, roles, monkeypatch):
    """Section 3.3.2; here 32 of 64."""
    seen, config = [], dataclasses.replace(CONFIG, seg_size=32)
    plain = segmenters.train_segmenter
    monkeypatch.setattr(segmenters, "train_segmenter", lambda net, x, y, **how: seen.append((x.shape, y.shape))
                        or plain(net, x, y, **how))
    images = torch.nn.functional.interpolate(roles.train.images, scale_factor=2.0)
    masks = roles.conditions.repeat_interleave(2, -1).repeat_interleave(2, -2)
    net = experiment.judge(name, config, images, masks, device="cpu")
    small = experiment.judge(name, config, roles.train.images, roles.conditions, device="cpu")
    assert seen[0][0][2:] == (32, 32) and seen[0][1][1:] == (32, 32)
    assert segmenters.predict_maps(net, images).shape[1:] == (32, 32)
    of_judge = experiment.dsc(net, images, masks)
    assert of_judge == pytest.approx(experiment.dsc(net.net, resize_image(images, 32), roles.conditions), nan_ok=True)
    assert of_judge == pytest.approx(experiment.dsc(net, roles.train.images, roles.conditions), abs=0.2, nan_ok=True)
    assert len(chapter.infection_confidence(net, images, masks)) == int((masks == 2).flatten(1).any(1).sum())
    assert type(small) is type(net.net)  # smaller slices are seen as they are
    paper = Config.for_profile("paper")
    assert (paper.size, paper.seg_size) == (512, 256)


def test_every_slice_of_a_real_scan_counts_at_paper(tmp_path):
    for name in ("a", "b"):
        save_case(tmp_path / name, shape=(24, 40, 64))
    paper = dataclasses.replace(Config.for_profile("paper"), scales=(32,))
    found, _ = load(paper, str(tmp_path))
    assert [found.patients.count(p) for p in ("a", "b")] == [24, 24]
    capped, _ = load(dataclasses.replace(paper, cap_real=True, slices_per_patient=3), str(tmp_path))
    assert [capped.patients.count(p) for p in ("a", "b")] == [3, 3]


def test_augmentation_of_judges_keeps_image_and_mask_aligned(roles):
    masks = roles.conditions[:8, 0]
    batch = {"image": masks[:, None].float() - 1, "map": masks, "other": 3}
    moved = experiment.strong(dataclasses.replace(CONFIG, elastic=0.0, degrees=0.0, crop_strong=1.0))(
        batch, torch_generator(0, "x"))
    assert torch.equal(moved["image"][:, 0], moved["map"].float() - 1) and moved["other"] == 3  # flips alone
    assert not torch.equal(moved["map"], masks)
    bent = experiment.strong(CONFIG)(batch, torch_generator(0, "x"))
    assert float((bent["image"][:, 0] - (bent["map"].float() - 1)).abs().max()) <= 2  # interpolated edges
    inside = (bent["image"][:, 0] - (bent["map"].float() - 1)).abs() < 1e-4
    assert float(inside.float().mean()) > 0.5


def test_dsc_and_rows_against_counting_by_hand(roles):
    net = experiment.judge("unet", CONFIG, roles.train.images, roles.conditions, device="cpu")
    masks = ternary(roles.test.maps)
    marked = segmenters.predict_maps(net, roles.test.images)
    found = experiment.dsc(net, roles.test.images, masks)
    for region, label in (("lung", 1), ("infection", 2)):
        assert found[region] == pytest.approx(overlap.dice(marked == label, masks[:, 0].numpy() == label))
    called = marked == 2
    outside = np.mean(masks[:, 0].numpy()[called] == 0) if called.any() else np.nan
    assert experiment.stray(net, roles.test.images, masks) == pytest.approx(outside, nan_ok=True)
    row = experiment.on_test(net, roles)
    mine = roles.test_modality == 2
    assert row["m2_infection"] == pytest.approx(overlap.dice(marked[mine] == 2, masks[mine][:, 0].numpy() == 2))
    each = []
    for patient in dict.fromkeys(roles.test.patients):
        here = np.asarray(roles.test.patients) == patient
        if bool((masks[here] == 2).any()):
            each.append(overlap.dice(marked[here] == 2, masks[here][:, 0].numpy() == 2))
    assert row["scans_infection"] == pytest.approx(student_t(each).value)
    table = experiment.quality({"unet": net, "enet": net}, {1: roles.test.images, 2: roles.test.images}, masks)
    assert table["overall_lung"] == pytest.approx(found["lung"]) and len(table) == 10
    one = experiment.quality({"unet": net}, {2: roles.test.images}, masks)
    assert set(one) == {"m2_unet_lung", "m2_unet_infection", "overall_lung", "overall_infection"}


def test_rates_over_slices_and_over_scans():
    truth, called = np.array([1, 1, 0, 0, 1, 0, 1, 1]), np.array([1, 0, 0, 1, 1, 0, 1, 1])
    found = experiment.rates(truth, called, ["a", "a", "a", "b", "b", "b", "c", "c"])
    assert (found["sensitivity"], found["specificity"], found["accuracy"]) == pytest.approx((4 / 5, 2 / 3, 6 / 8))
    over = student_t([1 / 2, 1, 1])
    assert (found["sensitivity_scans"], found["sensitivity_scans_low"]) == pytest.approx((over.value, over.low))
    assert found["specificity_scans"] == pytest.approx((1 + 1 / 2) / 2)  # scan c has no negative slice
    positive = experiment.rates(np.ones(2, int), np.ones(2, int), ["a", "b"])
    assert math.isnan(positive["specificity"]) and math.isnan(positive["accuracy_scans_low"])  # no scan differs


def test_a_classifier_without_negatives_is_trained_all_the_same(roles):
    config = dataclasses.replace(CONFIG, cls_steps=6, cls_batch=4)
    one = roles.singles[1]
    found = experiment.classify("resnet18", config, one.image, one.condition, roles, device="cpu")
    assert set(found) == {f"{r}{e}" for r in experiment.RATES for e in ("", "_scans", "_scans_low", "_scans_high")}
    truth = experiment.has_infection(ternary(roles.test.maps)).float()
    share = float(truth.mean())
    weighted = share * found["sensitivity"] + (1 - share) * found["specificity"]
    assert found["accuracy"] == pytest.approx(weighted)


def test_judges_of_real_slices_are_trained_once(roles, tmp_path):
    first = experiment.judges_of_reality(CONFIG, roles, tmp_path / "a", device="cpu")
    files = sorted((tmp_path / "judges").iterdir())
    again = experiment.judges_of_reality(CONFIG, roles, tmp_path / "b", device="cpu")
    assert len(files) == 2 and sorted((tmp_path / "judges").iterdir()) == files
    for name in JUDGES:
        marked = [segmenters.predict_maps(j[name], roles.test.images) for j in (first, again)]
        assert np.array_equal(*marked) and not again[name].training
    experiment.judges_of_reality(dataclasses.replace(CONFIG, seg_rate=1e-2), roles, tmp_path / "b", device="cpu")
    assert len(list((tmp_path / "judges").iterdir())) == 4


# -- generators and studies -------------------------------------------------------------------------------------------


def test_a_generator_is_trained_once_and_then_loaded(roles, tmp_path):
    for name in ("cosingan", "pix2pix"):
        first = experiment.trained(name, CONFIG, roles, 1, tmp_path / "a", seed=1, device="cpu")
        assert len(list((tmp_path / "generators").glob(f"{name}-m1-seed1-*.safetensors"))) == 1
        again = experiment.trained(name, CONFIG, roles, 1, tmp_path / "b", seed=1, device="cpu")
        assert not (tmp_path / "b").exists()
        made = [experiment.synthesize(m, roles.conditions[:3], 1) for m in (first, again)]
        assert torch.equal(*made) and made[0].shape == (3, 1, 32, 32)
    judged_otherwise = dataclasses.replace(CONFIG, cls_steps=9)
    experiment.trained("pix2pix", judged_otherwise, roles, 1, tmp_path / "b", seed=1, device="cpu")
    assert not (tmp_path / "b").exists()  # a judge's settings change no generator
    with pytest.raises(ConfigError, match="model: 'dcgan' is not one of pix2pix, enhanced, cosingan"):
        experiment.trained("dcgan", CONFIG, roles, 1, tmp_path)


def test_the_study_s_rivals_are_the_chapter_s_on_one_seed(roles, tmp_path):
    """Both orders of Table 1's rows come from the same networks: the enhanced rival shares CoSinGAN's U-Net in both."""
    one, how = roles.singles[1], {"seed": 3, "device": "cpu"}
    model, _ = experiment.cosingan.train(CONFIG, one, tmp_path / "chapter", **how)
    chapters = {"cosingan": model}
    for name in rivals.RIVALS:
        chapters[name], _ = rivals.train_rival(name, CONFIG, one, tmp_path / name, unet=model.networks["U"], **how)
    for name, method in chapters.items():
        ours = experiment.trained(name, CONFIG, roles, 1, tmp_path / "study" / "arm", **how)
        for net in set(method.networks) - {"D"}:
            for key, value in method.networks[net].state_dict().items():
                assert torch.equal(value, ours.networks[net].state_dict()[key]), (name, net, key)


def test_rivals_as_stated_have_the_first_stage_s_length(roles, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(experiment, "train_rival", lambda name, config, one, out, updates, **how: asked.append(
        (name, updates)) or rivals.train_rival(name, config, one, out, updates=updates, **how))
    for name in (*STATED, "pix2pix"):
        experiment.trained(name, CONFIG, roles, 1, tmp_path / "study" / name, device="cpu")
    assert asked == [("pix2pix", CONFIG.epochs_first), ("enhanced", CONFIG.epochs_first), ("pix2pix", None)]
    assert len(list((tmp_path / "study" / "generators").glob("pix2pix*m1*"))) == 2  # neither takes the other's weights


def test_table_1_is_painted_from_the_masks_of_patients_that_no_judge_has_seen_where_asked(roles):
    seen, whose = experiment.judged(roles, dataclasses.replace(CONFIG, judged_masks="train"))
    assert seen is roles.train and list(whose) == list(roles.train_modality)
    unseen, whose = experiment.judged(roles, dataclasses.replace(CONFIG, judged_masks="test"))
    assert not set(unseen.patients) & set(roles.train.patients) and list(whose) == list(roles.test_modality)
    asked = {}
    for which in ("train", "test"):
        config = dataclasses.replace(CONFIG, judged_masks=which)
        model = Bright(0.1)

        def paint(masks, generator, which=which, plain=model.synthesize, **options):
            asked[which] = masks
            return plain(masks, generator)

        model.synthesize = paint
        net = segmenters.build("unet", 3, width=4)
        experiment.quality_arm(config, roles, "cosingan", lambda name, m, model=model: model, {"unet": net}, 0)
    assert torch.equal(asked["test"], ternary(roles.test.maps)) and torch.equal(asked["train"], roles.conditions)


def test_arms_are_the_rows_of_the_tables_and_their_ids_are_the_ledger_s():
    found = {s.name: s for s in study.studies()}
    assert list(found) == [f"cosingan-table{k}" for k in range(1, 5)] and found.keys() <= runner_studies.known().keys()
    numbers = {n["id"] for n in report.load_reported("cosingan")["numbers"]}
    for table, metrics in ((1, ("m1_enet_lung", "overall_infection")), (2, ("resnet18_accuracy",)),
                           (3, ("resnet50_specificity",))):
        known = found[f"cosingan-table{table}"]
        for arm in known.arms("cpu"):
            for metric in metrics:
                ours = arm.name in ("painted", "real", "painted_sts", "sin_relabelled", *STATED)
                assert (known.number.format(arm=arm.name, metric=metric) in numbers) != ours


@pytest.mark.parametrize(("table", "arm", "metric"), [(1, "painted", "overall_lung"), (1, "real", "m2_unet_infection"),
                                                      (3, "sin_relabelled", "resnet18_accuracy"),
                                                      (4, "two_ts", "enet_overall_infection")])
def test_arms_run_from_data_to_numbers(table, arm, metric, tmp_path):
    found = experiment.table_arm(table, arm, profile="smoke", data="phantom", seed=0, device="cpu", out=tmp_path,
                                 overrides={"patients": 12, "slices_per_patient": 2, "cls_steps": 1, "cls_batch": 2})
    assert metric in found and (math.isnan(found[metric]) or 0 <= found[metric] <= 1)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="test_share: 1.0 is not a share"):
        Config.for_profile("smoke", {"test_share": 1.0})
    with pytest.raises(ConfigError, match="cls_steps: must be at least 1"):
        Config.for_profile("smoke", {"cls_steps": 0})
    for judges in ([], ["enet"], ["unet", "segnet"]):
        with pytest.raises(ConfigError, match="judges: .*; unet, or enet and unet, are wanted"):
            Config.for_profile("smoke", {"judges": judges})
    few = Paired(torch.zeros(2, 1, 32, 32), torch.ones(2, 32, 32, dtype=torch.uint8), ["a", "b"], ["a", "b"])
    with pytest.raises(DataError, match="no infected slice|patient"):
        prepare(CONFIG, few, 0, modality=np.array([1, 2]))


# -- trainings side by side -------------------------------------------------------------------------------------------


def everything(roles, out) -> dict[str, torch.Tensor]:
    """All the chapter's trainings, by the weights that they leave."""
    both, _ = training.train(CONFIG, roles, out, device="cpu")
    real = {name: (name, roles.train.images, roles.conditions) for name in JUDGES}
    rival, single, judges = training.train_alone(CONFIG, roles.singles[1], out, unet=both[1].networks["U"], sets=real,
                                                 device="cpu")
    sets = {"sin_ts": ("unet", roles.singles[1].image, roles.singles[1].condition)}
    assert list(both) == [1, 2, training.TWIN] and both["twin"].config.discriminator == "paper"
    methods = {f"modality {m}": method for m, method in both.items()}
    methods |= {name: method for group in (rival, single) for name, (method, _) in group.items()}
    nets = {f"{name}.{part}": net for name, method in methods.items() for part, net in method.networks.items()}
    nets |= judges | training.train_judges(CONFIG, sets, device="cpu")
    logs = {name: result.log["rec"] for group in (rival, single) for name, (_, result) in group.items()}
    assert list(rival) == list(rivals.RIVALS) and list(single) == list(rivals.LOSSES.values())
    assert [len(logs[name]) for name in rival] == [CONFIG.updates] * 2 and len(logs["mixed"]) == CONFIG.loss_epochs
    return {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(roles, tmp_path, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = everything(roles, tmp_path / "one")
    monkeypatch.setattr(training, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(training, "spread", lambda work, jobs, workers=None: parallel.spread(work, jobs, 2))
    together = everything(roles, tmp_path / "two")
    torch.set_num_threads(before)
    assert alone.keys() == together.keys() and len({k.split(".")[0] for k in alone}) == 3 + 2 + 5 + 3
    assert all(torch.equal(alone[key], together[key]) for key in alone)


def test_tables_have_the_columns_that_were_judged():
    rows = {"cosingan": {"m1_unet_lung": 0.5, "m1_unet_infection": 0.4}, "real": {"m1_unet_lung": 0.9,
                                                                               "m1_unet_infection": np.nan}}
    table = chapter.quality_table(rows, {"cosingan": "CoSinGAN", "real": "real"})
    assert table.columns == ["slices painted by", "U-Net, lung", "U-Net, infection"]
    assert table.rows == [["CoSinGAN", "**50.0**", "**40.0**"], ["real", "90.0", "–"]]


def test_the_real_training_set_is_out_of_the_contest_and_the_note_says_so():
    rows = {"oc_ts": {"overall_lung": 0.9}, "sin_ts": {"overall_lung": 0.7}, "if_sts": {"overall_lung": 0.8}}
    table = chapter.sets_table(rows, {name: SET_NAMES[name] for name in rows})
    assert [row[1] for row in table.rows] == ["90.0", "70.0", "**80.0**"]
    assert "OC-TS" in table.note and "not part of the contest" in table.note


def test_few_steps_and_gpus_are_not_worth_processes(monkeypatch):
    assert training.worth(training.WORTH_A_PROCESS, "cpu") and not training.worth(training.WORTH_A_PROCESS - 1, "cpu")
    monkeypatch.setattr("covlib.training.devices.resolve_device", torch.device)  # on machines without one too
    assert not training.worth(10**6, "cuda")


# -- the paper's tables -----------------------------------------------------------------------------------------------


def values() -> dict:
    return {n["id"]: n["value"] for n in report.load_reported("cosingan")["numbers"]}


def test_the_transcription_holds_table_1_and_its_means():
    v = values()
    for model in MODELS:
        for region in experiment.REGIONS:
            each = [v[f"table1_{model}_m{m}_{j}_{region}"] for m in (1, 2) for j in JUDGES]
            assert v[f"table1_{model}_overall_{region}"] == pytest.approx(np.mean(each), abs=0.051)
    assert v["table1_cosingan_m1_enet_lung"] < v["table1_pix2pix_m1_enet_lung"]


@pytest.mark.parametrize("table", [2, 3])
def test_accuracies_follow_from_410_positive_slices_of_674(table):
    v = values()
    for name in SETS:
        for net in experiment.CLASSIFIERS:
            s, c, a = (v[f"table{table}_{name}_{net}_{rate}"] for rate in experiment.RATES)
            assert a == pytest.approx((410 * s + 264 * c) / 674, abs=0.0015)
    rc, o = (v[f"table{table}_{n}_resnet50_accuracy"] for n in ("rc_sts", "o_sts"))
    assert (rc < o) == (table == 3)  # "except for ResNet50 trained with image size of 512x512"


def test_config_fields_named_in_the_ledger_exist_and_agree():
    settings = Config.for_profile("paper").as_dict()
    stated = {n["field"]: n["value"] for n in report.load_reported("cosingan")["numbers"] if "field" in n}
    assert stated.keys() <= settings.keys() and {name: settings[name] for name in stated} == stated
    assert len(stated) >= 20
