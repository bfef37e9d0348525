"""Pictures to predict on, and a look at a run between two of them."""

from contextlib import contextmanager

import numpy as np
from PIL import Image

import vik_mm.inference
from vik_mm.inference import Model

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 91, 3), dtype=np.uint8)  # wider than high


def write(path, pixels=PIXELS, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path, **options)
    return path


@contextmanager
def at_image(monkeypatch, number, action):
    """Do something when a model is given its n-th image."""
    count = 0

    class Watched(Model):
        def predict(self, images, **options):
            nonlocal count
            count += 1
            if count == number:
                action()
            return super().predict(images, **options)

    with monkeypatch.context() as patch:
        patch.setattr(vik_mm.inference, 'Model', Watched)
        yield
