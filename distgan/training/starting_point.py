"""The checkpoint that a user names, and the start of a run from the weights of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from distgan.config.plugins import is_loaded
from distgan.errors import DamagedError, UserError
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import NotFoundError, Storage
from distgan.training.checkpoints import (
    FOLDER,
    Checkpoint,
    CheckpointStore,
    checkpoint_name,
    matching_tensors,
)
from distgan.training.early_stopping import ranked
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.manifest import Manifest, damage_of
from distgan.training.networks import Networks
from distgan.training.progress import Progress

InitOption = Literal["--init-from", "--continue-from"]


def load_initial(
    checkpoint: Checkpoint, networks: Networks, ema: ExponentialMovingAverage, *, partial: bool = False
) -> str | None:
    """Loads the weights of a checkpoint. Raises UserError if they are those of other networks.

    With `partial` it loads those that fit (`check_initial`), and returns in words what it has left out, if anything.
    """
    left_out = check_initial(checkpoint, networks, partial=partial)
    parts = {"generator": networks.generator, "discriminator": networks.discriminator, "ema": ema.network}
    with matching_tensors(checkpoint.url):
        for part, network in parts.items():
            tensors = checkpoint.tensors[part]
            fitting = {name: tensors[name] for name in _fitting(tensors, network)} if partial else tensors
            network.load_state_dict(fitting, strict=not partial)
    return left_out


def check_initial(checkpoint: Checkpoint, networks: Networks, *, partial: bool = False) -> str | None:
    """Raises UserError, naming the first tensor, if a checkpoint's names and shapes are not those of the networks.

    With `partial` it raises where no weight of either fits, and returns in words what does not fit, if anything.
    """
    parts = {"generator": networks.generator, "discriminator": networks.discriminator, "ema": networks.generator}
    found = checkpoint.tensors if isinstance(checkpoint.tensors, Mapping) else {}
    differing = {
        part: difference
        for part, network in parts.items()
        if (difference := _difference(found.get(part), network)) is not None
    }
    if not differing:
        return None
    part, difference = next(iter(differing.items()))
    line = f"--init-from {checkpoint.url}: its {part} is another network than the configuration's: {difference}"
    has_all = all(isinstance(found.get(part), Mapping) for part in parts)
    fits = has_all and any(_fitting(found[part], network) for part, network in parts.items())
    if not partial or not fits:
        way = ", add --partial to take the weights that fit" if fits else ""
        none = ", and no weight of it fits" if partial else ""
        raise UserError(f"{line}{none}; use the configuration that it was trained with{way}, or leave --init-from out")
    left_out = [f"{part}: {_left_out(found[part], parts[part])}" for part in differing if part != "ema"]
    return f"--init-from {checkpoint.url} --partial: left out: {'; '.join(left_out)}"


def _fitting(tensors: Mapping[str, object], network: nn.Module) -> list[str]:
    """The names of the tensors that have the shape of the network's; empty where they are counters alone."""
    expected = {name: value.shape for name, value in network.state_dict().items()}
    names = [name for name, value in tensors.items() if isinstance(value, Tensor) and value.shape == expected.get(name)]
    return names if any(expected[name] for name in names) else []


_MOST_NAMED = 4


def _left_out(tensors: Mapping[str, object], network: nn.Module) -> str:
    """How many tensors of a network keep their random values, and which; how many of the checkpoint are not used."""
    expected, fitting = network.state_dict(), set(_fitting(tensors, network))
    random = [name for name in expected if name not in fitting]
    unused = [name for name in tensors if name not in expected]
    parts = [f"{len(random)} of {len(expected)} tensors stay random ({_named(random)})"] if random else []
    return ", ".join(parts + ([f"{len(unused)} there have no place here ({_named(unused)})"] if unused else []))


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join([*names[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])])


def check_same_start(manifest: Manifest, option: InitOption, url: str, where: str) -> None:
    """Raises UserError if an existing run did not begin with the run or checkpoint at `url`."""
    began = manifest.init_from if option == "--init-from" else manifest.continued_from
    if began is None or not f"{began}/".startswith(f"{url}/"):
        raise UserError(
            f"{option} {url}: the run {where} already exists, and began from "
            f"{manifest.init_from or manifest.continued_from or 'random weights'}; leave {option} out to resume it, "
            f"or start a new run with another --name"
        )


def _difference(tensors: object, network: nn.Module) -> str | None:
    """The first difference between the tensors of a checkpoint and those of a network, in words."""
    if not isinstance(tensors, Mapping):
        return "it is missing"
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items() if isinstance(value, Tensor)}
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            return f"{name} is {found.get(name, 'missing')} there and {expected.get(name, 'missing')} here"
    return None


BEST, LAST = "best", "last"


def find_checkpoint(
    url: str,
    which: str | None = None,
    default: str = BEST,
    retry: Retry = NO_RETRY,
    custom: Mapping[str, str] | None = None,
    trust_code: bool = False,
) -> Checkpoint:
    """The checkpoint at `url`, or one of the run at `url`.

    Args:
        which: `best`, `last`, or a checkpoint's name; None for `default`. The best is the best evaluated one that still
            exists; without one, or if it is damaged, the last complete one.
        custom: custom components of the user's configuration (see `CheckpointStore`).
        trust_code: whether the module that the run's `evaluation.monitor` names may be imported. It says which values
            are better.

    Raises UserError if there is no such complete checkpoint, or if `url` is a checkpoint and `which` is given.
    """
    folder = Storage.open(url)
    parent, _, name = folder.url.rpartition("/")
    above, _, kind = parent.rpartition("/")
    if kind == FOLDER and name.startswith("step-"):
        if which is not None:
            raise UserError(f"--checkpoint {which}: {url} is a checkpoint itself; give the run's folder instead")
        return _read(
            CheckpointStore(Storage.open(above), custom, reading=retry), name, f"{url}: no complete checkpoint there"
        )
    store = CheckpointStore(folder, custom, reading=retry)
    return _checkpoint_of_run(store, default if which is None else which, url, trust_code)


def _read(
    store: CheckpointStore, name: str, line: str, hint: str = "give the run's folder to use another one"
) -> Checkpoint:
    try:
        return store.read(name)
    except NotFoundError:
        raise UserError(f"{line}; {hint}") from None
    except DamagedError as error:
        raise DamagedError(f"{line}: {damage_of(error)}; {hint}") from None


def _checkpoint_of_run(store: CheckpointStore, which: str, url: str, trust_code: bool) -> Checkpoint:
    newest = store.newest_manifest()
    if newest is None:
        _newest(store, url)  # raises if there are damaged ones
        raise UserError(f"{url}: no checkpoints there; give a run's folder (storage/name) or one of its checkpoints")
    if which not in {BEST, LAST}:
        others = f"give {BEST}, {LAST}, or one of {', '.join(store.names()[-5:])}"
        line = f"--checkpoint {which}: {url} has no complete checkpoint of that name"
        if which not in store.names():
            raise UserError(f"{line}; {others}")
        return _read(store, which, line, others)
    evaluations = Progress.from_dict(newest.progress).evaluations
    evaluation = newest.config.get("evaluation")
    monitor = evaluation.get("monitor") if isinstance(evaluation, dict) else None
    monitor = monitor if isinstance(monitor, str) else "frechet"
    if which == BEST and not trust_code and not is_loaded(monitor):
        raise UserError(
            f"{url}: code of a module outside distgan ({monitor:.80}) says which checkpoint is best; add --trust-code "
            f"if you trust it, or name one with --checkpoint, as in --checkpoint {LAST}"
        )
    best = None
    if which == BEST:
        best = store.first_existing(checkpoint_name(evaluation.step) for evaluation in ranked(evaluations, monitor))
    skipped: tuple[str, ...] = ()
    if best is not None:
        try:
            return store.read(best)
        except NotFoundError:
            pass
        except DamagedError as error:
            skipped = (str(error),)
    checkpoint = _newest(store, url)
    if checkpoint is None:
        raise UserError(f"{url}: its checkpoints are unfinished; train it again, or give another run")
    return replace(checkpoint, skipped=tuple(dict.fromkeys([*skipped, *checkpoint.skipped])))


def _newest(store: CheckpointStore, url: str) -> Checkpoint | None:
    try:
        return store.newest()
    except DamagedError as error:
        raise DamagedError(
            f"{url}: its checkpoints are damaged or unfinished ({error}); train it again, or give another run"
        ) from None
