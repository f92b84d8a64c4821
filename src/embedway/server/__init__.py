"""The gateway: an HTTP server over one embedder, with the APIs of several services."""
