"""``python -m covlib.cli`` is the command ``covlib``; it lives in ``covbook.cli``."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("covbook.cli", run_name="__main__", alter_sys=True)
