"""The parts of the client of the HTTP API, which is `serve.client.Client`."""
