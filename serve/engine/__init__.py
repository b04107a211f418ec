"""The parts that the API and the page share: service, batching, thumbnails, metrics and settings."""
