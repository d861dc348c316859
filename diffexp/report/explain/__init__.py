"""What `diffexp explain` found, in words, tables and figures."""
