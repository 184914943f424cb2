"""Class names however people write them: a word that is denied ("COVID-19 negative") never ends as the class it denies.

What is read: a known class ("covid", "pneumonia", "normal"), what is left when one is denied ("noncovid",
"nonpneumonia", "abnormal"), or, where a name says none of these, both at once, or that nobody knows ("suspected"), the
name itself in lower case. ``covlib data check`` prints what was read as what.
"""

import re
import unicodedata

DENIED = {"covid": "noncovid", "normal": "abnormal", "pneumonia": "nonpneumonia"}
KNOWN = ("covid", "noncovid", "pneumonia", "nonpneumonia", "normal", "abnormal")
_RANK = {"normal": 0, "noncovid": 1, "nonpneumonia": 1, "pneumonia": 3, "covid": 4}

# What a name is made of, tried in this order at each place. Negation comes before ("no", "without"; to the end or to
# "but"), before and for one word ("non-"), or after ("negative"). The languages are those of the public collections.
_WORDS = {
    "idiom": r"(?:no|without|sin|ohne|kein\w*|sans) (?:(?:acute|significant|relevant) )?(?:findings?|abnormalit\w+|"
             r"patholog\w+|hallazgos|befund|anomalie)",
    "before": r"no|not|without|neg(?:ative)? (?:for|of)|free of|absence of|sin|senza|sem|sans|pas de|ohne|kein\w*|"
              r"nicht|nein|без|нет|не|无|非|未见",
    "next": r"non|pre|anti|nao",
    "after": r"negativ\w*|neg|absent|free|false|excluded|ruled out|unlikely|отриц\w*|阴性",
    "covid": r"covid|ncov|coronavirus|corona|sars ?cov|新冠\w*",
    "pneumonia": r"pne?u?moni[ae]\w*|neumonia|bacterial|viral|lung opacit\w+|пневмони\w*|肺炎",
    "normal": r"normal(?:es|e)?|healthy|controls?|kontroll\w*|nofindings?|gesund\w*|sano|sain|норм\w*|здоров\w*|正常",
    "stop": r"[;/|&()]|but|with|aber|pero|mais|sondern",
    "pause": r",",
}
_WORD = re.compile("|".join(rf"(?P<{kind}>(?<!\w)(?:{words})(?!\w))" for kind, words in _WORDS.items()))
_GLUED = re.compile(r"covid|ncov|coronavirus|cov(?=\W?2)|abnormal(?!it)|(?:(?<=non)|(?<=not)|(?<=no))normal|pneumonia",
                    re.I)  # "nonCOVID19", "CT_COVIDneg"
_SIGNS = ((re.compile(r"\bw/o\b", re.I), " without "),
          (re.compile(r"[(\[]\s*[-–−]\s*[)\]]|(?<=\w)\s*[-–−]\s*ve\b|(?<=[\w])\s*[-–−]\s*$|=\s*(?:0|no|false)\b", re.I),
           " negative "),
          (re.compile(r"[(\[]\s*\+\s*[)\]]|\+\s*ve\b|(?<=\w)\s*\+\s*$", re.I), " positive "))
_UNSURE = re.compile(r"\?|\b(suspect\w*|possib\w*|probab\w*|presum\w*|pending|inconclusive|unclear|indeterminate|post|"
                     r"recovered|vaccin\w*|vs|versus|exposure|contact|history|risk)\b")
_NEUTRAL = set("ct cts cxr xray xrays x ray rays chest lung lungs thorax image images img imgs scan scans slice slices "
               "case cases patient patients class label type group rt pcr test result the of by is positive pos "
               "train training val validation test testing set data dataset png jpg d".split())
_DATASET = re.compile(r"data ?sets?|databases?|data|collections?|archives?|master|main|challenge|radiography|database|"
                      r"versus|vs|and|und|y|et|e")


def _spaced(name: str) -> str:
    """Lower-case words with one space between, commas and the like kept as words of their own."""
    text = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    for sign, word in _SIGNS:
        text = sign.sub(word, text)
    text = re.sub(r"[(\[]\s*([^\W\d]+)\s*[)\]]", r" \1 ", text)  # "COVID-19 (negative)"
    text = _GLUED.sub(lambda found: f" {found[0].lower()} ", text)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", text).lower()
    text = re.sub(r"([,;/|&()])", r" \1 ", text)
    return " ".join(re.sub(r"[^\w,;/|&?()]+|_", " ", text).split())


def _told(spaced: str) -> tuple[list[str], list[str]]:
    """The classes that a name affirms and those that it denies."""
    said: list[list] = []  # [class, denied]
    deny, deny_next, since, open_ended = False, False, 0, False
    for found in _WORD.finditer(spaced):
        kind = found.lastgroup
        if kind in ("covid", "pneumonia", "normal", "idiom"):
            said.append(["normal" if kind == "idiom" else kind, kind != "idiom" and (deny or deny_next)])
            deny_next = open_ended = False
        elif kind == "before" or (kind == "after" and len(said) == since):
            deny = open_ended = True
        elif kind == "after":
            said[since:] = [[name, True] for name, _ in said[since:]]
        elif kind == "next":
            deny_next = True
        else:
            deny, since = deny and kind == "pause", len(said)
    if open_ended:  # "COVID: no" denies what stands before it
        said[since:] = [[name, True] for name, _ in said[since:]]
    return [name for name, denied in said if not denied], [name for name, denied in said if denied]


def canonical(name: str) -> str:
    """A class's name however it is spelt: "CT_NonCOVID" -> "noncovid", "COVID-19" -> "covid", "Healthy" -> "normal",
    "no pneumonia" -> "nonpneumonia"; names that say none of these keep their lower-case spelling."""
    spaced = _spaced(name)
    affirmed, denied = _told(spaced)
    if _UNSURE.search(spaced) or ("normal" in affirmed and len(set(affirmed)) > 1):
        return name.lower()
    for kind in ("covid", "pneumonia", "normal"):
        if kind in affirmed:
            return kind
    for kind in DENIED:
        if kind in denied:
            return DENIED[kind]
    rest = {word for word in spaced.split() if word.isalpha()}
    if rest & {"negative", "neg"} and rest <= _NEUTRAL | {"negative", "neg"}:
        return "noncovid"
    return "covid" if rest & {"positive", "pos"} and rest <= _NEUTRAL else name.lower()


def ordered(classes) -> tuple[str, ...]:
    """Classes with the healthy one first and COVID-19 (the positive class) last."""
    return tuple(sorted(classes, key=lambda c: (_RANK.get(c, 2), c)))


def is_class(folder: str) -> bool:
    """Whether a folder's name states a class that we know, and is no data set's title ("COVID-19 Database")."""
    return canonical(folder) in KNOWN and not any(_DATASET.fullmatch(word) for word in _spaced(folder).split())


def class_names(folders: list[str]) -> dict[str, str]:
    """Folder name -> class name. Two spellings of one class become one; two kinds of it ("Viral Pneumonia", "Bacterial
    pneumonia") keep names of their own."""
    kinds: dict[str, dict[tuple, list[str]]] = {}
    for folder in folders:
        kinds.setdefault(canonical(folder), {}).setdefault(_signature(folder), []).append(folder)
    return {folder: kind if len(signatures) == 1 else alike[0].lower()
            for kind, signatures in kinds.items() for alike in signatures.values() for folder in alike}


def _signature(folder: str) -> tuple:
    """What a name says besides its class. One that ends in a number is a case's, and says nothing besides."""
    words = _WORD.sub(lambda found: " " if found.lastgroup not in ("pneumonia",) or found[0].startswith("pne") else
                      found[0], _spaced(folder)).split()
    return () if words[-1:] and words[-1].isdigit() and words[-1] not in ("19", "2") else tuple(
        sorted(w for w in words if w.isalpha() and w not in _NEUTRAL))


def label_from_name(name: str) -> str | None:
    """The class that a case's name states ("covid_coronacases_001"), if it states one."""
    label = canonical(name)
    return label if label in KNOWN else None
