"""Tables 1 to 4 of chapter 05 as studies of arms that run apart (``covlib sweep``).

Nothing heavy is imported until an arm runs; what an arm is made of is in ``experiment``.
"""

from covbook.chapters import studies_of_tables
from covbook.chapters.cosingan import MODELS, OURS, SETS, STATED

TITLES = {1: "Table 1: what judges find in synthetic slices of three models",
          2: "Table 2: classifiers, half resolution", 3: "Table 3: classifiers, full resolution",
          4: "Table 4: ENet and U-Net trained on six sets"}


def arms(table: int) -> dict[str, dict]:
    """Arm -> settings of Tables 1 to 4. An arm's name and a metric's make the id of the paper's number:
    ``table<table>_<arm>_<metric>``. Beyond the paper's rows: "real" (Table 1: what the judges reach on held-out real
    slices), ``STATED`` (Table 1: rivals of another length), "painted" (the masks in the single slice's mean greys) and
    "sin_relabelled" (Tables 2 and 3)."""
    if table == 1:
        return {name: {"model": name} for name in (*MODELS, *STATED, "painted", "real")}
    if table in (2, 3):
        return {name: {"set": name} for name in (*SETS, *OURS, "sin_relabelled")}
    return {name: {"set": name} for name in (*SETS, *OURS)}


def studies() -> list:
    """Tables 1 to 4 as ``covbook.studies.Study``: "cosingan-table1" to "cosingan-table4"."""
    return studies_of_tables("cosingan", "05_cosingan", TITLES, arms, table_arm,
                             "covbook.chapters.cosingan.roles:Config")


def table_arm(table: int, arm, **settings) -> dict[str, float]:
    """One arm of one table: everything from the data to the numbers; see ``arms`` for what there is."""
    from covbook.chapters.cosingan import experiment

    return experiment.table_arm(table, arm.name, **settings)
