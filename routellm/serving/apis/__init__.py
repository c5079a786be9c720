"""The APIs that clients speak, one file each, and what the gateway asks of any of them (`base`)."""
