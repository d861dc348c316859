"""`diffexp check`: whether a target is correct, and what its choice means for training."""
