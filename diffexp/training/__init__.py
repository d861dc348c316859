"""One run: the module, what happens beside training, checkpoints, signals. No Hydra here."""
