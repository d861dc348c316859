"""`diffexp check`: whether a target is right, and what follows for training from the choice of it."""
