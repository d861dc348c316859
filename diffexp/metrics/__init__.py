"""How good the samples are: Frechet distance and KID, on features that are named with every number."""
