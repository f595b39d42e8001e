"""Measures a checkpoint outside the loop that made it: with data, extractor and generator opened for the purpose."""

from __future__ import annotations

from pathlib import Path

from distgan.config.schema import Config
from distgan.data.blocks import BlockReader
from distgan.data.cache import BlockCache
from distgan.data.decode import SampleDecoder
from distgan.data.index import Index
from distgan.data.storage import Storage
from distgan.evaluation.evaluator import Evaluator, Scores
from distgan.training.checkpoints import Checkpoint
from distgan.training.fakes import GeneratedImages
from distgan.training.job import check_images
from distgan.training.sampling import average_generator
from distgan.world import World


def score_checkpoint(config: Config, checkpoint: Checkpoint, world: World) -> Scores:
    """Measures a checkpoint's average generator as its run does; called on every rank, and the same on each.

    `config` is the run's, where data and what is measured may be others; `evaluation.weights` must be in it where the
    extractor needs them (`with_weights`). With the run's own values, workers and threads (`process.prepare_process`)
    the scores are those of the run to the bit.

    Raises UserError for data that are not there or do not go with the generator, and for tensors of another network.
    """
    decoder = open_decoder(config)
    evaluator = Evaluator(config.evaluation, config.data, world, Storage.open(str(config.data.url)), decoder)
    generator = average_generator(config, checkpoint, world.device)
    return evaluator.evaluate(GeneratedImages(config, decoder.index.labels, world.device, generator))


def open_decoder(config: Config) -> SampleDecoder:
    """The data set of a configuration, which names one. Raises UserError where it is not what the networks make."""
    assert config.data.url is not None
    data = Storage.open(config.data.url)
    index = Index.load(data)
    check_images(config, index)
    cache = None
    if config.data.cache_dir is not None and not data.is_local:
        cache = BlockCache(Path(config.data.cache_dir), config.data.cache_mb * 2**20)
    return SampleDecoder(index, BlockReader(data, index, cache), config.image_shape, config.data)
