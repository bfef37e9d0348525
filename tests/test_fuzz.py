"""Inputs that nobody thought of: legal ones work, others raise an error that says so, and nothing is half done."""

import copy
import importlib.util
import io
import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import vik_mm
from vik_mm.checkpoints import load_weights, read_checkpoint, unwrap_state_dict
from vik_mm.errors import BadInputError

SETTINGS = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

legal = dict(
    arch=st.builds(
        lambda depths, widths: dict(depths=depths, embed_dims=widths),
        st.lists(st.integers(1, 2), min_size=3, max_size=3),
        st.lists(st.integers(1, 12), min_size=3, max_size=3),
    ),
    img_size=st.one_of(st.integers(32, 70), st.tuples(st.integers(32, 70), st.integers(32, 70))),
    in_channels=st.integers(1, 5),
    token_mixer=st.one_of(
        st.fixed_dictionaries(
            dict(
                type=st.just('MultiPatchRBFKAN'),
                patch_size=st.integers(1, 8),
                num_grids=st.integers(2, 9),
                rank=st.integers(1, 70),
            )
        ),
        st.just(dict(type='Pooling')),
        st.just(dict(type='Identity')),
    ),
    mlp_ratio=st.sampled_from([1, 2, 3.5]),
    drop_rate=st.floats(0, 0.9),
    drop_path_rate=st.floats(0, 0.9),
    layer_scale_init_value=st.sampled_from([0, 1e-5, 1.0]),
    out_indices=st.one_of(st.integers(-3, 2), st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)),
    frozen_stages=st.integers(-1, 1),  # stages after the last output are not built
    norm_eval=st.booleans(),
    with_cp=st.booleans(),
)
strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 99),
    st.floats(-100, 100) | st.sampled_from([float('nan'), float('inf')]),
    st.text(max_size=3),
    st.lists(st.integers(-3, 3), max_size=5),
    st.dictionaries(
        st.sampled_from(['type', 'depths', 'embed_dims', 'kernel_size', 'x']), st.integers(-1, 4), max_size=3
    ),
)


@settings(max_examples=60, **SETTINGS)
@given(st.fixed_dictionaries({}, optional=legal), st.integers(32, 90), st.integers(32, 90), st.integers(1, 2))
def test_legal_arguments_and_sizes_work(options, height, width, batch):
    options.setdefault('arch', dict(depths=[1, 1, 1], embed_dims=[4, 6, 8]))
    options.setdefault('out_indices', 2)
    model = vik_mm.ViK(**options)
    channels = options.get('in_channels', 3)
    maps = model(torch.randn(batch, channels, height, width))
    indices = options['out_indices']
    indices = [indices] if isinstance(indices, int) else indices
    expected = []
    for i in indices:
        stride = 4 * 2 ** (i % 3)
        expected.append((batch, options['arch']['embed_dims'][i], -(-height // stride), -(-width // stride)))
    assert [tuple(m.shape) for m in maps] == expected
    assert all(m.isfinite().all() for m in maps)
    trained = [p for p in model.parameters() if p.requires_grad]
    if any(m.requires_grad for m in maps):
        sum(m.sum() for m in maps).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in trained)


@settings(max_examples=300, **SETTINGS)
@given(st.sampled_from(sorted(legal)), strange)
def test_strange_arguments_work_or_are_refused_at_the_door(name, value):
    options = dict(arch=dict(depths=[1, 1, 1], embed_dims=[4, 6, 8]), out_indices=(2,))
    try:
        model = vik_mm.ViK(**{**options, name: copy.deepcopy(value)})
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    except KeyError as error:  # MMEngine's, of a type that is not registered
        assert 'registry' in str(error)
        return
    model(torch.randn(1, model.stem.conv.in_channels, 40, 33))


@settings(max_examples=60, **SETTINGS)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(2, 5))
def test_images_that_are_too_small_or_no_images_are_refused(height, width, channels, dims):
    model = vik_mm.ViK(arch=dict(depths=[1, 1, 1], embed_dims=[4, 6, 8]), out_indices=(2,)).eval()
    image = torch.randn(*(1, channels, height, width, 2)[:dims])
    if dims == 4 and channels == 3 and min(height, width) >= 32:
        assert model(image)[0].shape[1] == 8
        return
    with pytest.raises((ValueError, TypeError)):
        model(image)


def small_classifier():
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ViK', arch=dict(depths=[1, 1], embed_dims=[4, 6]), out_indices=(1,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=6),
        )
    )


@settings(max_examples=150, **SETTINGS)
@given(data=st.data())
def test_checkpoints_with_one_entry_changed_load_whole_or_not_at_all(data):
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model, other = small_classifier(), small_classifier()
    weights = dict(other.state_dict())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    name = data.draw(st.sampled_from(sorted(weights)))
    change = data.draw(st.sampled_from(['drop', 'rename', 'shape', 'kind', 'extra', 'none', 'dtype']))
    value = weights.pop(name)
    if change != 'drop':
        weights[f'{name}x' if change == 'rename' else name] = {
            'rename': value,
            'extra': value,
            'none': value,
            'shape': torch.zeros(data.draw(st.lists(st.integers(0, 3), max_size=4))),
            'kind': data.draw(st.one_of(st.none(), st.text(), st.integers(), st.lists(st.integers()))),
            'dtype': value.double(),
        }[change]
    if change == 'extra':
        weights['more'] = torch.zeros(1)
    try:
        load_weights(model, weights)
        loaded = {name: value.to(before[name].dtype) for name, value in weights.items()}
    except BadInputError as error:
        assert str(error)
        loaded = before
    assert all(torch.equal(now, loaded[name]) for name, now in model.state_dict().items())


@pytest.fixture(scope='module')
def checkpoint_bytes():
    init_default_scope('mmpretrain')
    buffer = io.BytesIO()
    torch.save(dict(state_dict=small_classifier().state_dict(), meta=dict(epoch=1)), buffer)
    return buffer.getvalue()


@settings(max_examples=400, **SETTINGS)
@given(data=st.data())
def test_damaged_checkpoint_files_are_refused_or_read(data, checkpoint_bytes, tmp_path_factory):
    content = bytearray(checkpoint_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / 'damaged.pth'
    path.write_bytes(bytes(content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))]))
    try:
        weights, _ = unwrap_state_dict(read_checkpoint(path))
    except BadInputError as error:
        assert 'damaged.pth' in str(error) or 'weights' in str(error)
        return
    assert all(isinstance(value, torch.Tensor) for value in weights.values())


@pytest.fixture(scope='module')
def encoded():
    image = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
    return [cv2.imencode(ending, image)[1].tobytes() for ending in ('.png', '.jpg', '.bmp', '.webp', '.tiff')]


@settings(max_examples=10_000, **SETTINGS)
@given(data=st.data())
def test_image_bytes_are_decoded_or_named(data, encoded, tmp_path_factory):
    from vik_mm.datasets.unreadable_files import GuardedPipeline

    content = bytearray(data.draw(st.sampled_from(encoded)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.getbasetemp() / 'image'
    path.write_bytes(bytes(content))
    dataset = type('Images', (), dict(test_mode=False, __len__=lambda self: 1))()
    pipeline = GuardedPipeline(load_image(), dataset, max_damaged=1.0)
    sample = pipeline(dict(img_path=str(path), sample_idx=0))
    if sample is None:
        assert pipeline.is_damaged[0]
    else:
        assert sample['img'].ndim == 3 and sample['img'].shape[2] == 3


def load_image():
    from mmcv.transforms import LoadImageFromFile

    return LoadImageFromFile()


CONFIG = 'configs/vik/vik-demo_shapes.py'


def leaves(value, path=()):
    """List the keys of all values in nested dicts."""
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    yield path


@settings(max_examples=120, **SETTINGS)
@given(data=st.data())
def test_models_of_configs_with_one_key_changed_are_built_or_refused(data, root):
    init_default_scope('mmpretrain')
    model = Config.fromfile(root / CONFIG).model.to_dict()
    path = data.draw(st.sampled_from([p for p in leaves(model['backbone']) if p]))
    owner = model['backbone']
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = data.draw(strange)
    try:
        built = MODELS.build(model)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    except KeyError as error:
        assert 'registry' in str(error) or 'type' in str(error)
        return
    except RuntimeError as error:  # MMEngine's answer to a type without a name
        assert str(error).startswith('Failed to get')
        return
    assert hasattr(built, 'backbone')


@pytest.fixture
def prepare(root):
    """What tools/train.py does with a config before it builds anything."""
    spec = importlib.util.spec_from_file_location('train_tool', root / 'tools/train.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    from vik_mm.recipes import prepare_training

    return lambda *arguments: prepare_training(tool.parse_args(list(map(str, arguments))))


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_config_files_with_one_key_changed_are_prepared_or_refused(task, prepare, make_config, tmp_path):
    config = Config.fromfile(make_config(task)).to_dict()
    paths = [path for path in leaves(config) if path and path[0] != 'custom_imports']
    changed = tmp_path / 'changed.json'
    (tmp_path / 'work').mkdir()

    @settings(max_examples=200, **SETTINGS)
    @given(st.sampled_from(paths), strange)
    def change(path, value):
        content = copy.deepcopy(config)
        owner = content
        for key in path[:-1]:
            owner = owner[key]
        owner[path[-1]] = value
        changed.write_text(json.dumps(content))
        try:
            cfg = prepare(changed, '--work-dir', tmp_path / 'work')
        except (ValueError, FileNotFoundError) as error:
            assert str(error)
            return
        assert path[0] == 'train_cfg' or cfg.train_cfg.type.startswith('Resumable')

    change()
    assert not list((tmp_path / 'work').iterdir())
