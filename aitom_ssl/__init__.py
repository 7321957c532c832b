"""Labelling and discovering macromolecules in cryo-electron tomography when labels are few.

Nothing is imported here: `import aitom_ssl.simulation` must not pay for TensorFlow.
"""

__version__ = "0.1.0"
