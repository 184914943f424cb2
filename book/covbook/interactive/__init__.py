"""What readers handle in the page: the quiz, viewers of slices, sliders."""
