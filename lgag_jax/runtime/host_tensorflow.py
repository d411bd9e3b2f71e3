"""TensorFlow for reading data on the host; accelerators are left to JAX. Nothing else imports it."""

# Imported first: after TensorFlow, GeoPackages would use its SQLite, which has no R-trees.
import pyogrio  # noqa: F401
import tensorflow as tf

tf.config.set_visible_devices([], "GPU")

__all__ = ["tf"]
