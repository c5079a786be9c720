"""Programs that use `routellm`, to run and to copy from: `python -m examples.offline_routing`."""
