"""What is on disk: a run's directory, a study, the states of its runs. No torch here."""
