"""Running chapters, trainings, studies and sweeps, and what the command line does with data."""
