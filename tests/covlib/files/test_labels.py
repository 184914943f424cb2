"""Class names: every spelling, and no denied class that ends as itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covlib.files.labels import DENIED, KNOWN, canonical, class_names, is_class, label_from_name, ordered

NAMES = {"covid": ("COVID", "CT_COVID", "COVID-19", "2019-nCoV", "positive", "COVID-19 Positive", "COVID +",
                   "covid+ve", "covid1", "137covid", "COVID19", "SARS-CoV-2", "Pneumonia/Viral/COVID-19", "pos_1"),
         "noncovid": ("CT_NonCOVID", "non-COVID", "Non_COVID19", "not covid", "NOTCOVID", "nocovid",
                      "COVID-19 Negative", "Negative for COVID-19", "COVID(-)", "covid -ve", "COVID_neg", "neg_covid",
                      "CovidNegative", "NEG", "COVID: no", "covid absent", "COVID not detected", "covid-free",
                      "pre-covid", "COVID=0",
                      "COVID-19 (negative)", "without COVID-19", "w/o covid", "no covid or pneumonia", "negative",
                      "RT-PCR negative", "COVID-19 ruled out", "sin COVID", "kein COVID", "pas de covid",
                      "без COVID-19", "COVID negativo"),
         "pneumonia": ("Viral Pneumonia", "Pneumonia", "Lung_Opacity", "Pnemonia", "non-COVID pneumonia",
                       "pneumonia, covid negative", "Pneumonia/Viral/SARS", "bacterial"),
         "nonpneumonia": ("no pneumonia", "without pneumonia", "Negative for Pneumonia", "NonPneumonia",
                          "pneumonia negative", "ohne Pneumonie", "без пневмонии", "sans pneumonie"),
         "normal": ("Normal", "healthy", "No Finding", "NoFindings", "no abnormality", "normal1", "kein Befund",
                    "normal (COVID negative)", "controls"),
         "abnormal": ("abnormal", "not normal", "non-normal", "NotNormal", "Not Healthy",
                      "No Lung Opacity / Not Normal")}


@pytest.mark.parametrize(("wanted", "name"), [(wanted, name) for wanted, names in NAMES.items() for name in names])
def test_every_spelling(wanted, name):
    assert canonical(name) == wanted


@pytest.mark.parametrize("name", ["tuberculosis", "suspected covid", "covid vs normal", "typical appearance", "no tb",
                                  "unhealthy", "mers-cov", "paranormal"])
def test_names_that_state_no_class_stay_what_they_are(name):
    assert canonical(name) == name and label_from_name(name) is None and not is_class(name)


AFFIRMED = {"covid": ("COVID-19", "covid", "nCoV", "SARS-CoV-2"), "pneumonia": ("pneumonia", "Viral Pneumonia"),
            "normal": ("normal", "Healthy")}
BEFORE = ("no", "No", "non", "Non", "not", "without", "NOT", "sin", "ohne")
AFTER = ("negative", "Neg", "absent", "free", "excluded", "(-)", "NEGATIVE")


@given(st.sampled_from([(k, n) for k, names in AFFIRMED.items() for n in names]), st.sampled_from(BEFORE + AFTER),
       st.sampled_from([" ", "-", "_", "  "]), st.sampled_from(["", "CT_", "images ", "patient 12 "]))
def test_a_denied_class_never_ends_as_itself(told, word, gap, before):
    kind, name = told
    text = f"{before}{word}{gap}{name}" if word in BEFORE else f"{before}{name}{gap}{word}"
    assert canonical(text) == DENIED[kind], text
    assert label_from_name(text) == DENIED[kind]


@given(st.text(max_size=30))
def test_any_text_is_read_and_reading_is_stable(text):
    found = canonical(text)
    assert found in KNOWN or found == text.lower()
    assert not is_class(text) or found in KNOWN


def test_two_spellings_are_one_class_and_two_kinds_are_two():
    assert class_names(["COVID", "covid-19", "Normal"]) == {"COVID": "covid", "covid-19": "covid", "Normal": "normal"}
    assert class_names(["covid1", "covid2", "normal1"]) == {"covid1": "covid", "covid2": "covid", "normal1": "normal"}
    assert class_names(["Viral Pneumonia", "Bacterial pneumonia"]) == {
        "Viral Pneumonia": "viral pneumonia", "Bacterial pneumonia": "bacterial pneumonia"}
    assert class_names(["Lung_Opacity", "Viral Pneumonia", "COVID"])["Lung_Opacity"] == "lung_opacity"
    assert ordered({"covid", "normal", "pneumonia", "zebra"}) == ("normal", "zebra", "pneumonia", "covid")
    assert ordered(["covid", "noncovid"]) == ("noncovid", "covid")


def test_a_title_is_no_class():
    assert is_class("COVID") and is_class("non-covid") and is_class("Viral Pneumonia")
    for title in ("COVID-19_Radiography_Dataset", "covid_and_normal", "COVID Data", "covid-chestxray-dataset-master"):
        assert not is_class(title)
    assert label_from_name("covid_coronacases_001") == "covid" and label_from_name("lung_imlab_001") is None
    assert label_from_name("non_covid_7") == "noncovid"
