"""What ``covlib data ...`` does(arguments: ``covbook.cli``). Nothing heavy is imported until one is called."""

from covbook.tables import align
from covlib.errors import ConfigError


def listing(given) -> None:
    """``covlib data list [NAME]``: all registered data sets as a table, or one in words."""
    from covbook.datasets import sources

    if given.markdown:
        print(sources.markdown_table(), end="")
        return
    if given.name:
        print(sources.describe(given.name))
        return
    rows = sources.list_rows()
    head = {"name": "name", "size": "size", "chapters": "chapters", "licence": "licence", "here": "here"}
    cells = [[str(row[key]) for key in head] for row in [head, *rows]]
    for line in cells[1:]:
        line[-1] = "yes" if line[-1] == "True" else "no"
    print(align(cells))
    print("\ncovlib data list NAME says more about one; covlib data get NAME fetches it.")


def get(given) -> None:
    """``covlib data get NAME``; prints the folder."""
    from covbook.datasets import sources

    print(sources.get(given.name, given.to))


def check(given) -> int:
    """``covlib data check DIR``: 1 where something is wrong with it."""
    from covbook.runner import checking

    report = checking.check(given.path)
    print(report)
    return 1 if report.problems else 0


def phantom(given) -> None:
    """``covlib data phantom DIR``; prints the folder."""
    from covbook.runner import phantom_set

    try:
        shape = tuple(int(part) for part in given.shape.split(",")) if given.shape else None
    except ValueError:
        raise ConfigError(f"--shape: {given.shape!r} must be whole numbers with commas, such as 64,256,256") from None
    print(phantom_set.write_phantom(given.folder, given.n, seed=given.seed, shape=shape, label=given.label,
                                    kind=given.kind, progress=True))
