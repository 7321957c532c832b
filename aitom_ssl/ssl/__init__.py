"""Self-supervised methods: an encoder in, a keras.Model with its own training step out; `.encoder` is the result."""

from aitom_ssl.ssl.moco import MoCo

__all__ = ["MoCo"]
