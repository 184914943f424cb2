"""The errors a user can act on: one line each, naming the file or field and what would be right."""


class CovlibError(Exception):
    """Base class. The command line prints ``covlib: error: <text>`` and exits with status 2."""


class ConfigError(CovlibError):
    """A profile, parameter, override, device or checkpoint that does not fit."""


class DataError(CovlibError):
    """A file or folder that cannot be used as it is."""


class TrainingError(CovlibError):
    """A run that diverged, or that cannot write what it must keep."""
