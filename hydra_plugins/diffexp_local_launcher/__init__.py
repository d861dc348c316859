"""`hydra/launcher=local`: the jobs of a sweep as processes of this machine, for any Hydra application."""
