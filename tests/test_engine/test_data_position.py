"""Samplers of several processes in one: who sees what, before and after a change of batches and processes."""

import collections
import random

import mmengine.dataset.sampler as samplers
import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler

from vik_mm.engine.runner import data_position
from vik_mm.engine.runner import samplers as seeded_batches
from vik_mm.engine.runner.data_position import Feed, Position
from vik_mm.engine.runner.samplers import ResumableBatchSampler
from vik_mm.errors import BadInputError


class Numbers(list):
    """A data set."""


@pytest.fixture
def processes(monkeypatch):
    """Make the batch samplers of all processes of a run."""

    def make(count, batch_size, samples=48, kind=DefaultSampler, **options):
        made = []
        for rank in range(count):
            monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, count))
            monkeypatch.setattr(data_position, 'get_world_size', lambda: count)
            monkeypatch.setattr(seeded_batches, 'get_rank', lambda rank=rank: rank)
            made.append(ResumableBatchSampler(kind(Numbers(range(samples)), seed=3), batch_size, **options))
        return made

    return make


def take(batch_samplers, position, batches=None, is_endless=False):
    """Indices that the next batches hold, of all processes."""
    found = []
    for each in batch_samplers:
        each.start(0, position, is_endless)
        for k, batch in enumerate(each):
            if k == batches:
                break
            found += map(int, batch)
    return found


def test_every_sample_is_seen_once_an_epoch_or_the_change_is_refused(processes):
    rng, refusals = random.Random(0), 0
    for _ in range(150):
        first = processes(rng.choice([1, 2, 3]), rng.choice([1, 2, 4, 5]))
        second = processes(rng.choice([1, 2, 3, 4]), rng.choice([1, 2, 3, 8]))
        before, now = first[0].feed, second[0].feed
        batches = rng.randint(0, len(first[0]))
        seen = min(batches * before.batch_size, before.per_process)
        try:
            place = now.convert(seen, before.record())
        except BadInputError as error:
            assert 'cannot have shared equally' in str(error)
            refusals += 1
            continue
        rest = take(second, Position(0, place))
        assert sorted(take(first, Position(), batches) + rest) == list(range(48))
        assert len(rest) <= now.batches_from(place) * now.batch_size * now.num_processes
    assert 0 < refusals < 50


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
def test_training_by_iteration_goes_on_behind_what_was_seen(processes, kind):
    rng = random.Random(1)
    whole = take(processes(1, 1, kind=kind), Position(), 48 * 8, is_endless=True)
    for _ in range(40):
        first = processes(rng.choice([1, 2]), rng.choice([1, 2, 4]), kind=kind)
        second = processes(rng.choice([1, 2]), rng.choice([2, 3, 8]), kind=kind)
        batches = rng.randint(0, 30)
        place = first[0].feed.advance(Position(), batches)
        try:
            place = Position(place.passes, second[0].feed.convert(place.seen, first[0].feed.record()))
        except BadInputError:
            continue
        done = take(first, Position(), batches, is_endless=True)
        rest = take(second, place, 6, is_endless=True)
        seen = collections.Counter(done + rest)
        assert seen == collections.Counter(whole[: seen.total()])


def test_a_place_goes_on_as_the_batches_do(processes):
    (batches,) = processes(1, 5, samples=12)  # 5, 5, 2
    feed = batches.feed
    assert [feed.advance(Position(), k) for k in range(5)] == [(0, 0), (0, 5), (0, 10), (1, 0), (1, 5)]
    assert feed.advance(Position(3, 4), 3) == (4, 5)  # 5, 3 and 5 of the next pass
    (batches,) = processes(1, 5, samples=12, drop_last=True)
    assert batches.feed.advance(Position(), 3) == (1, 5)
    (batches,) = processes(1, 16, samples=12, drop_last=True)
    with pytest.raises(BadInputError, match='12 samples for 1 processes make no batch of 16'):
        batches.feed.advance(Position(), 1)


@pytest.mark.parametrize(
    'change,reason',
    [
        (dict(num_samples=47), 'the data set has 48 samples now'),
        (dict(order='DefaultSampler, shuffled by seed 4'), 'the order of the samples is another'),
        (dict(order=None), 'depends on the size of the batches'),
    ],
    ids=['other data', 'other seed', 'own batches'],
)
def test_a_place_that_means_something_else_now_is_refused(processes, change, reason):
    feed = processes(1, 4)[0].feed
    before = {**feed.record(), 'batch_size': 2, **change}
    assert feed.convert(0, before) == 0  # between two epochs all is well
    with pytest.raises(BadInputError, match=f'{reason}.*Resume as before .*load_from=FILE'):
        feed.convert(8, before)


def test_what_is_dealt_out_in_a_way_of_its_own_has_no_order():
    class OwnSampler(DefaultSampler):
        pass

    data = Numbers(range(8))
    assert Feed(OwnSampler(data, seed=0), 2, False).order is None
    assert Feed(DefaultSampler(data, seed=0, round_up=False), 2, False).order is None
    assert Feed(DefaultSampler(data, seed=0), 2, False, batches=object()).order is None
