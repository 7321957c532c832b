"""A run folder of the small network, for tests of this room."""

from small_network import small_network

from aitom_ssl.training import RunFolder


def small_run(path, description, model=None):
    """The folder at `path`, as a finished training leaves it."""
    run = RunFolder.create(path, "small", "tiny")
    run.write_config({"method": "small", "settings": {"data": "tiny"}, "model": description.to_dict()})
    run.save_model(model or small_network())
    return run.path
