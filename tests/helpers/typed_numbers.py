"""Numbers that somebody typed into a page's prose, and that nothing else vouches for.

A number may stand in the Markdown of a page if it is

* said by a role ({number}, {says}), which takes it from a result file, a setting or the ledger;
* code: a setting, a size, a label, a command (inline code and fenced blocks);
* the paper's: in the ledger of the page's paper (of any of the five on other pages), in a paragraph that names it;
* somebody else's, in a sentence with its citation or in the words of a link to where it stands;
* a name or a place: COVID-19, ResNet-50, chapter 04, Table 2, seed 0, 95 % of an interval, a year, a version;
* mathematics: an index, an exponent or a small whole number within a formula; 0 and 1, the ends of a scale.

Anything else is typed: it would go on standing there when the run behind it has changed.
"""

import re

from covbook import project, report
from covbook.prose import ROLE

FIVE = {"mann2021": "dcgan", "jiang2020": "global_local", "zhang2020cosingan": "cosingan", "zunair2021": "cyclegan",
        "mangalagiri2021": "cgan3d"}
AUTHORS = {"Mann": "dcgan", "Jiang": "global_local", "Zhang": "cosingan", "CoSinGAN": "cosingan", "Zunair": "cyclegan",
           "Mangalagiri": "cgan3d"}
PAPER = re.compile(r"\b(paper|paper's|Their|Tables?|Figs?\.|Eqs?\.|Section|Sections|authors)\b")
CITED = "\N{LEFT-POINTING ANGLE BRACKET}cite\N{RIGHT-POINTING ANGLE BRACKET}"
HIDDEN = "\N{MIDDLE DOT}"  # stands where something was that vouches for itself
NUMBER = r"[-\N{MINUS SIGN}+~]?\d[\d,]*(?:\.\d+)?"

_PLACE = (r"(?:[Cc]hapters?|[Ss]ections?|[Tt]ables?|[Ff]igs?\.|[Ff]igures?|[Ee]qs?\.|[Rr]eferences?|[Ss]eeds?|"
          r"[Qq]uestions?|[Mm]odality|[Mm]odalities|[Ee]xercises?|[Pp]atients?|Python|MONAI|torch|torchvision|Node|"
          r"status|CC BY|Inception)")
_ITEM = r"\(?[\dIVX]+(?:[-.][\dA-Z]+)*\)?"
NAMES = [
    re.compile(rf"\b{_PLACE} {_ITEM}(?:(?:,| and| to| or|, and) {_ITEM})*(?![\w.]*\d)"),
    re.compile(r"\b(?:[Ii]n|of|by|spring|from|since) (?:19|20)\d\d\b(?=[\s,.;:)]*(?:$|[^\s\d%x]))"),
    re.compile(r"\b95 % (?=(?:confidence )?(?:interval|of (?:repetitions|studies)|\{term\}|\W*confidence))"),
    re.compile(r"\barXiv:\d{4}\.\d+"),
    re.compile(r"\b\d+-?D\b"),
    re.compile(r"\b[A-Za-z][A-Za-z]*(?:-?[A-Za-z]*)*-?\d[\w-]*"),  # COVID-19, ResNet-50, H200, G2
    re.compile(r"\b(?:8|16|32|64)-?(?: or (?:8|16|32|64)-)?bit\b"),
]


def ledger(names) -> set[float]:
    """Every number that the ledgers ``names`` transcribe, and the two ends of each range."""
    found: set[float] = set()
    for name in names:
        for number in report.load_reported(name)["numbers"]:
            value = number["value"]
            for one in value if isinstance(value, list) else [value]:
                found |= {float(v.replace(",", "")) for v in re.findall(r"\d+(?:\.\d+)?", str(one))}
    return found


def typed(text: str, page: str) -> list[str]:
    """The sentences of a page's Markdown that hold a typed number, each with the number in front.

    Args:
        page: "07_cgan3d", "speed": decides which paper's numbers may stand in it.
    """
    own = page.split("_", 1)[-1]
    has_ledger = (project.REPORTED / f"{own}.yaml").is_file()
    found = []
    for paragraph in re.split(r"\n\s*\n", _plain(text)):
        paragraph = " ".join(paragraph.split())
        named = {AUTHORS[a] for a in AUTHORS if a in paragraph} | {FIVE[k] for k in FIVE if f"{CITED}{k} " in paragraph}
        if has_ledger and PAPER.search(paragraph):
            named.add(own)
        stated = _of(frozenset(named))
        for sentence in re.split(r"(?<=[.!?:;]) (?=\W*[A-Z$(])", paragraph):
            elsewhere = [key for key in re.findall(rf"{CITED}(\S+) ", sentence) if key not in FIVE]
            if elsewhere:
                continue
            for number in _numbers(sentence):
                value = float(re.sub(r"[^\d.]", "", number).rstrip("."))
                if value not in (0, 1) and value not in stated:
                    found.append(f"{number}: {sentence.strip()}")
    return found


_CACHE: dict[frozenset, set[float]] = {}


def _of(names: frozenset) -> set[float]:
    if names not in _CACHE:
        _CACHE[names] = ledger(names)
    return _CACHE[names]


def _plain(text: str) -> str:
    """A page's prose: code, targets and options gone, citations marked, the words of {says} kept."""
    text = re.sub(r"<!--.*?-->", HIDDEN, text, flags=re.DOTALL)
    text = _unfenced(text)
    text = re.sub(r"^ *:[a-z_-]+:.*$|^ *\([a-z0-9-]+\)=$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^( *[-*] |\|)", r"\n\1", text, flags=re.MULTILINE)  # an item or a row is a paragraph of its own
    text = re.sub(r"^ *\d+\. (?=\S)", "\n", text, flags=re.MULTILINE)
    cite = lambda m: "".join(f"{CITED}{key.strip()} " for key in m[1].split(","))
    text = re.sub(r"\{cite[:a-z]*\}`([^`]*)`", cite, text)
    text = ROLE.sub(lambda m: _words(m[2]) if m[1] == "says" else HIDDEN, text)
    text = re.sub(r"\{[a-z:]+\}`([^`]*)`", HIDDEN, text)
    text = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", HIDDEN, text, flags=re.DOTALL)
    linked = lambda m: re.sub(r"\d", "", m[0])  # what an address stands behind is cited by it
    text = re.sub(r"\[[^\]]*\]\(https?://[^)\s]*\)", linked, text)
    text = re.sub(r"\]\([^)\s]*\)", "]", text)
    return _formulas(re.sub(r"<?https?://\S+", HIDDEN, text))


def _unfenced(text: str) -> str:
    """``text`` without blocks of code; of a directive its title and what it holds stay, but for raw HTML."""
    lines, open_fences = [], []
    for line in text.splitlines():
        fence = re.match(r" *(`{3,}|:{3,}|~{3,})(\{([^}]*)\})? ?(.*)$", line)
        inside = open_fences[-1] if open_fences else None
        hidden = inside is not None and inside[1]
        closing = fence and inside and not fence[2] and not fence[4] and fence[1].startswith(inside[0])
        if closing:
            open_fences.pop()
            lines.append("")
        elif fence and not hidden:
            open_fences.append((fence[1], not fence[2] or fence[3] == "raw"))
            lines += ["", fence[4] if fence[2] and fence[3] not in ("raw", "include") else "", ""]  # a file's name
        elif not hidden:
            lines.append(line)
    return "\n".join(lines)


def _words(says: str) -> str:
    """The words between which {says} chooses, without what it computes."""
    choices = [part.rpartition(" ? ")[2] for part in says.split(" | ")]
    return re.sub(r"\{[^{}]*\}", HIDDEN, "; ".join(choices))


def _numbers(sentence: str) -> list[str]:
    for name in NAMES:
        sentence = name.sub(HIDDEN, sentence)
    return [m[0].rstrip(",") for m in re.finditer(NUMBER, sentence)]


def _formulas(text: str) -> str:
    """``text`` with its mathematics gone, but for numbers that are more than signs of a formula: decimals, and in a
    line of text whole numbers of three digits or a formula that is one bare number."""
    def inline(part: re.Match) -> str:
        bare = not re.search(r"[A-Za-z^/=+]|(?<=\d) *-", re.sub(r"\\(?:ldots|dots|pm|,|%)", "", part[1]))
        numbers = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", part[1])
        return " ".join([HIDDEN, *(n for n in numbers if bare or "." in n or len(n) > 2)])

    display = lambda part: " ".join([HIDDEN, *re.findall(r"\d+\.\d+", part[1])])
    text = re.sub(r"\$\$(.+?)\$\$", display, text, flags=re.DOTALL)
    return re.sub(r"\$([^$]+)\$", inline, text)
