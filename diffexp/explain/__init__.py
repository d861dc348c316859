"""`diffexp explain`: how well each target could be predicted, before anything is trained."""
