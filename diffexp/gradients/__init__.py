"""Norm, noise and agreement of the training gradient by noise level: `diffexp evaluate diagnostics=gradients`."""
