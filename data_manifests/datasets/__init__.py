"""One file = one data set = one `BUILDER`: the folder is the registry."""
