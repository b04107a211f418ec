"""Where untrusted bytes are decoded: a pool of worker processes, each in a sandbox."""
