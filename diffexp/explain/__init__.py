"""`diffexp explain`: how well each target can be predicted, before anything is trained."""
