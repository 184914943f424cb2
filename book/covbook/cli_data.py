"""The commands ``covlib data ...``. Nothing heavy is imported at the top, as in ``covbook.cli``."""

from covbook.manners import LAYOUT, SEED, arg, command
from covbook.tables import align
from covlib.errors import ConfigError


def _data_list(given) -> None:
    from covbook.datasets import sources

    if given.markdown:
        print(sources.markdown_table(), end="")
        return
    if given.name:
        print(sources.describe(given.name))
        return
    head = ["name", "size", "chapters", "licence", "here"]
    rows = [[row[key] if key != "here" else "yes" if row[key] else "no" for key in head] for row in sources.list_rows()]
    print(align([head, *rows]))
    print("\ncovlib data list NAME says more about one; covlib data get NAME fetches it.")


def _data_get(given) -> None:
    from covbook.datasets import sources

    print(sources.get(given.name, given.to))


def _data_join(given) -> None:
    from covbook.datasets import joining

    print(joining.join(given.parts, given.to))


def _data_check(given) -> int:
    from covbook.runner import checking

    report = checking.check(given.data, given.sheet)
    print(report)
    return 1 if report.problems else 0


def _data_phantom(given) -> None:
    from covbook.runner import phantom_set

    try:
        shape = tuple(int(part) for part in given.shape.split(",")) if given.shape else None
    except ValueError:
        raise ConfigError(f"--shape: {given.shape!r} must be whole numbers with commas, such as 64,256,256") from None
    print(phantom_set.write_phantom(given.folder, given.n, seed=given.seed, shape=shape, label=given.label,
                                    kind=given.kind, progress=True))


def add(commands) -> None:
    command(commands, "list", _data_list, "list the registered data sets, or say more about one",
            arg("name", nargs="?", metavar="NAME"),
            arg("--markdown", action="store_true", help="as the table of the book's page on data sets"))
    command(commands, "get", _data_get, "download, verify and unpack a data set", arg("name", metavar="NAME"),
            arg("--to", metavar="DIR", help="a new folder (default: the cache)"))
    command(commands, "join", _data_join, "lay classes of several data sets into one folder, as links: one task of "
            "images from several places",
            arg("parts", nargs="+", metavar="DATA:CLASS,CLASS", help="a folder or a registered source's name, and "
                "its classes, such as rsna-pneumonia:normal,pneumonia covid-chestxray:covid"),
            arg("--to", required=True, metavar="DIR", help="a new folder"))
    command(commands, "check", _data_check, "say what a folder holds and what is wrong with it",
            arg("data", metavar="DIR"), LAYOUT,
            arg("--sheet", metavar="FILE.png", help="draw a few images of every class with their masks"))
    command(commands, "phantom", _data_phantom, "write virtual patients as a data set",
            arg("folder", metavar="DIR", help="a new or empty folder"),
            arg("-n", type=int, default=10, help="how many patients (default 10)"), SEED,
            arg("--shape", metavar="Z,Y,X", help="size of each volume, or Y,X of images (default: natural)"),
            arg("--label", help="normal, covid or pneumonia (default: mixed)"),
            arg("--kind", default="cases", help="cases (NIfTI volumes, default), slices or xrays (PNG)"))
