"""Settings: profiles, overrides as values and as text, and errors that name the field and what would be right."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Literal

import pytest

from covlib import config
from covlib.errors import ConfigError


@dataclass(frozen=True)
class Demo(config.Config):
    image_size: int = 224
    learning_rate: float = 2e-4
    flip: bool = True
    judge: str = "densenet169"
    weights: str | None = None
    loss: Literal["bce", "lsgan"] = "bce"
    widths: tuple[int, ...] = (64, 128)
    window: tuple[float, float] = (-600, 1500)

    @classmethod
    def profiles(cls):
        return {"smoke": {"image_size": 28, "widths": (8,)}, "cpu": {"image_size": 56}}

    def __post_init__(self):
        if self.image_size < 8:
            raise ConfigError(f"image_size: must be at least 8, got {self.image_size}")


def test_profiles_change_only_what_they_name():
    assert Demo.for_profile("smoke") == Demo(image_size=28, widths=(8,))
    assert Demo.for_profile("paper") == Demo()
    assert Demo.for_profile("cpu", {"flip": False}) == Demo(image_size=56, flip=False)


@pytest.mark.parametrize("text, field, value", [
    ("112", "image_size", 112), ("1e-3", "learning_rate", 1e-3), ("3", "learning_rate", 3.0), ("no", "flip", False),
    ("True", "flip", True), ("resnet18", "judge", "resnet18"), ("none", "weights", None), ("x.pt", "weights", "x.pt"),
    ("lsgan", "loss", "lsgan"), ("8,16,32", "widths", (8, 16, 32)), ("(8, 16)", "widths", (8, 16)),
    ("40,400", "window", (40.0, 400.0)),
])
def test_text_from_the_command_line_is_read_by_the_fields_type(text, field, value):
    found = getattr(Demo.for_profile("paper", {field: text}), field)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("field, value", [
    ("image_size", "2.5"), ("image_size", 2.5), ("image_size", True), ("image_size", None), ("learning_rate", "fast"),
    ("learning_rate", float("nan")), ("learning_rate", "inf"), ("flip", 1), ("flip", "perhaps"), ("judge", 3),
    ("loss", "hinge"), ("widths", 8), ("widths", "8,x"), ("window", "40"), ("window", (1, 2, 3)), ("weights", 3),
])
def test_a_value_of_the_wrong_type_names_field_and_value(field, value):
    with pytest.raises(ConfigError) as error:
        Demo.for_profile("cpu", {field: value})
    assert str(error.value).startswith(f"{field}: must be ") and repr(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names_list_the_valid_ones_and_guess():
    with pytest.raises(ConfigError) as error:
        Demo.for_profile("cpu", {"img_size": 64})
    assert "'img_size' is not a setting (did you mean 'image_size'?); valid are image_size, learn" in str(error.value)
    with pytest.raises(ConfigError) as error:
        Demo.for_profile("cpuu")
    assert "'cpuu' is not a profile (did you mean 'cpu'?); valid are smoke, cpu, long, gpu, paper" in str(error.value)
    with pytest.raises(ConfigError, match="dict"):
        Demo.for_profile("cpu", ["image_size=64"])


@dataclass(frozen=True)
class Schedule(config.Config):
    epochs: int = 6
    steps: int = 0
    batch_size: int = 4


def test_steps_follow_the_epochs_or_are_given_and_then_shared_as_the_epochs_are():
    assert [Schedule().steps_of(n) for n in (1, 4, 5, 100)] == [2, 6, 8, 150]
    assert [Schedule().steps_of(100, e) for e in (1, 2.5, 12)] == [25, 63, 300]
    given = Schedule(steps=90)
    assert [given.steps_of(n) for n in (1, 7, 10_000)] == [90] * 3
    assert [given.steps_of(5, e) for e in (1, 2, 3)] == [15, 30, 45] and given.steps_of(5, 12) == 180
    with pytest.raises(ConfigError, match="steps: -1; 0 .* or more"):
        Schedule(steps=-1).steps_of(8)


def test_checks_of_the_papers_own_config_run_after_conversion():
    with pytest.raises(ConfigError, match="at least 8"):
        Demo.for_profile("cpu", {"image_size": "4"})


def test_a_config_is_frozen_and_goes_to_json():
    settings = Demo.for_profile("smoke")
    with pytest.raises(FrozenInstanceError):
        settings.image_size = 3
    assert settings.as_dict()["widths"] == [8] and list(settings.as_dict())[0] == "image_size"


def test_a_chapter_without_settings_refuses_overrides():
    with pytest.raises(ConfigError, match="valid are .none."):
        config.Config.for_profile("cpu", {"steps": 3})
