"""How fast it is: timing of what covlib does beside plain twins of it, and the pages made of the results."""
