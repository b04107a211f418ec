"""Libraries: a folder made searchable, with its catalogue, indexing, search and filters."""
