"""A folder made searchable: catalogue, scan, indexing, search, filters."""
