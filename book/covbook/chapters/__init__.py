"""What single chapters need beside the notebook.

Of each paper's chapter there is one ``prepare(config, data, seed)``, which loads the data and deals the patients their
roles, and one ``train(config, roles, out, seed=, device=, resume=, checkpoint=)``. The notebook, ``covlib train`` and
the studies call those two.
"""

from collections.abc import Callable


def studies_of_tables(paper: str, chapter: str, titles: dict[int, str], arms: Callable, run: Callable,
                      config: str) -> list:
    """A ``covbook.studies.Study`` for each of a paper's tables: "<paper>-table1" and so on.

    Args:
        titles: table -> title. arms: table -> {arm: settings}. config: "module:class" of the settings.
        run: (table, arm, profile=, data=, seed=, device=, out=, overrides=) -> metric -> value.
    """
    from covbook.studies import Arm, Study

    def listed(table: int):
        return lambda profile: [Arm(name, settings) for name, settings in arms(table).items()]

    def runner(table: int):
        def run_arm(arm: Arm, *, profile, data, seed, device, out, overrides=None) -> dict[str, float]:
            return run(table, arm, profile=profile, data=data, seed=seed, device=device, out=out, overrides=overrides)

        return run_arm

    return [Study(f"{paper}-table{table}", chapter, title, listed(table), runner(table), config,
                  f"table{table}_{{arm}}_{{metric}}") for table, title in titles.items()]
