"""`hydra/launcher=slurm`: the jobs of a sweep as an array of SLURM jobs, for any Hydra application."""
