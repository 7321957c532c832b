"""Self-supervised methods: an encoder in, a keras.Model with its own training step out; `.encoder` is the result."""

from aitom_ssl.on_demand import on_demand

__all__ = ["MoCo", "SimCLR", "SwAV"]
__getattr__, __dir__ = on_demand(__name__, {"MoCo": "moco", "SimCLR": "simclr", "SwAV": "swav"})
