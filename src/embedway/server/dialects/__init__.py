"""APIs that the gateway understands: one file for each. They read requests and write answers, and compute nothing."""
