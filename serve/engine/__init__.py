"""What the API and the page share: service, batching, thumbnails, metrics, settings."""
