"""Whether a data set, and an evaluation's samples, are enough for what a run does with them."""

from __future__ import annotations

from distgan.config.schema import Config
from distgan.training.events import FewImages

# Of fewer batches a discriminator soon knows every image.
_BATCHES = 4


def few_images(samples: int, config: Config, features: int | None) -> FewImages | None:
    """What `samples` real images, or the generated ones of an evaluation, are too few for; None where they are enough.

    `features` is how many numbers the extractor makes of an image, None where nobody knows.
    """
    wanted, batch_size = config.evaluation.real_samples, config.training.batch_size
    compared, generated = min(samples, wanted or samples), config.evaluation.samples
    found = FewImages(
        samples=samples,
        compared=compared,
        features=features if features is not None and min(compared, generated) <= features else None,
        real_samples=wanted if wanted is not None and samples < wanted else None,
        batch_size=batch_size if samples < _BATCHES * batch_size else None,
        batches=_BATCHES,
        generated=generated if features is not None and generated <= features else None,
    )
    return found if found.features or found.real_samples or found.batch_size else None
