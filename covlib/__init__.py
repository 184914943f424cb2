"""covlib: five 2020 papers on synthetic COVID-19 chest images, as one thin PyTorch library.

Importing the package is cheap: nothing heavy is loaded until a submodule that needs it is imported.
"""

__version__ = "0.1.0"
