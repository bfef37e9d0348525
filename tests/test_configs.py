import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS, TRANSFORMS

import vik_mm
from vik_mm import ViTKArAt

VIK = [
    *(f'vik-{size}_in1k' for size in 'tsbml'),
    *('vik-t_cifar10', 'vik-t-pooling_cifar10', 'vik-t-identity_cifar10', 'vik-t_cifar100'),
    *(
        'vik-demo_shapes',
        'vik-s_imagenette',
        'vik-t_tiny-imagenet100',
        'vik-t-attention_cifar10',
        'vik-t-5m_cifar10',
        'vik-l_fsdp_in1k',
    ),
]
KARAT = [
    f'vit-{size}_{attention}_{data}'
    for size, frequencies in dict(t=3, s=3, b=1).items()
    for attention in ('softmax', f'g{frequencies}b', f'g{frequencies}u')
    for data in ('cifar10', 'cifar100', 'in1k')
]
KARAT += [f'vit-t_{attention}_cifar10-32px' for attention in ('softmax', 'g3b', 'g3u', 'multipatch')]
KARAT += [f'swin-t_{attention}_cifar10' for attention in ('softmax', 'g3b', 'multipatch')]
KARAT += ['convit-t_softmax_cifar10', 'convit-t_g3b_cifar10']
MIXERS = [
    f'{part}-t_{data}'
    for part in (
        *('agent', 'arc', 'biformer', 'casvit', 'datpp', 'davit', 'efficientvit', 'fibottention', 'gaam', 'l2vit'),
        *('life', 'lrnet', 'maxvit', 'minimal', 'moh', 'nat', 'nprf', 'polyphase', 'riformer', 'shvit', 'smt', 'ulsam'),
        *('gr-kan', 'efficient-kan', 'fast-kan', 'sine-kan', 'fourier-kan'),
    )
    for data in ('tiny-imagenet100', 'cifar10')
]
NAMES = dict(vik=VIK, karat=KARAT, mixers=MIXERS)


@pytest.mark.parametrize('folder', NAMES)
def test_every_config_is_listed_here(root, folder):
    assert sorted(NAMES[folder]) == sorted(p.stem for p in (root / f'configs/{folder}').glob('*.py'))


@pytest.fixture(params=[f'{folder}/{name}' for folder, names in NAMES.items() for name in names])
def path(request, root):
    return root / f'configs/{request.param}.py'


def test_form(path, depth_of_inheritance):
    text = path.read_text()
    lines = text.split('\n')
    assert len(lines) <= 40
    assert lines[0].startswith('# ')
    assert f'configs/{path.parent.name}/{path.name}' in text, 'the header says the command'
    assert depth_of_inheritance(path) <= 3


def test_model_trains_one_step_and_predicts(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    # The macro design is what is tested here; a block or two for each stage are enough of it.
    cfg.model.data_preprocessor = cfg.data_preprocessor
    if cfg.model.backbone.type == 'ViTKArAt':
        heads = ViTKArAt.arch_settings[cfg.model.backbone.arch]['num_heads']
        arch = dict(embed_dims=8 * heads, num_layers=1, num_heads=heads, feedforward_channels=8 * heads)
        cfg.model.backbone.arch, cfg.model.head.in_channels = arch, 8 * heads
    elif cfg.model.backbone.type == 'SwinKArAt':
        cfg.model.backbone.arch = dict(embed_dims=12, depths=[1, 1, 1, 2], num_heads=[1, 2, 4, 8])
        cfg.model.head.in_channels = 96
    elif cfg.model.backbone.type == 'ViK' and isinstance(cfg.model.backbone.arch, str):
        setting = vik_mm.ViK.arch_settings[cfg.model.backbone.arch]
        cfg.model.backbone.arch = dict(setting, depths=(1,) * len(setting['depths']))
    model = MODELS.build(cfg.model)
    model.init_weights()
    size = cfg.model.backbone.get('img_size', 224)
    sample = TRANSFORMS.build(dict(type='PackInputs'))(
        dict(img=torch.zeros(size, size, 3, dtype=torch.uint8).numpy(), gt_label=3)
    )
    batch = dict(inputs=[sample['inputs']] * 2, data_samples=[sample['data_samples']] * 2)
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode='loss')
    losses['loss'].backward()
    assert losses['loss'].isfinite()
    (first, _) = model.eval()(**model.data_preprocessor(batch), mode='predict')
    assert first.pred_score.shape == (cfg.model.head.num_classes,)


def test_the_imagenet_recipe_is_the_releases(root):
    cfg = Config.fromfile(root / 'configs/vik/vik-s_in1k.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0.05)
    assert cfg.auto_scale_lr.base_batch_size == 1024 == 8 * cfg.train_dataloader.batch_size
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.start_factor * optimizer.lr, warm_up.end) == (pytest.approx(1e-6), 5)
    assert (cosine.eta_min, cosine.end, cfg.train_cfg.max_epochs) == (1e-5, 300, 310)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert {a.type: a.alpha for a in cfg.model.train_cfg.augments} == {'Mixup': 0.8, 'CutMix': 1.0}
    assert cfg.model.head.loss.label_smooth_val == 0.1
    steps = {step.type: step for step in cfg.train_pipeline}
    assert steps['RandAugment'].policies == 'timm_increasing'
    assert (steps['RandAugment'].magnitude_level, steps['RandAugment'].magnitude_std) == (9, 0.5)
    assert (steps['RandomErasing'].erase_prob, steps['RandomErasing'].mode) == (0.25, 'rand')
    choices = [branch[0].interpolation for branch in steps['RandomChoice'].transforms]
    assert choices == ['bilinear', 'bicubic']
    assert cfg.test_pipeline[1].scale == int(224 / 0.9)
    assert cfg.test_pipeline[1].interpolation == 'bicubic'


def test_headers_quote_the_metafile(root):
    """A result in a config's first lines is the metafile's."""
    import yaml

    meta = yaml.safe_load((root / 'configs/vik/metafile.yml').read_text())
    results = {m['Config']: m['Results'][0]['Metrics']['Top 1 Accuracy'] for m in meta['Models'] if 'Results' in m}
    for name in VIK:
        text = (root / f'configs/vik/{name}.py').read_text()
        if quoted := re.search(r'measured ([\d.]+) % top-1', text):
            assert float(quoted[1]) == results[f'configs/vik/{name}.py']


def test_no_weight_decay_where_the_authors_have_none(root):
    cfg = Config.fromfile(root / 'configs/_base_/optimizers/adamw_vik.py')
    exempt = {
        'DeformableAttention': {'bias_table'},
        'CascadedGroupAttention': {'position_bias'},
        'MaxViTAttention': {'attn_block.position_bias', 'attn_grid.position_bias'},
        'NeighborhoodAttention': {'bias'},
        'MixtureOfHeadAttention': {'query_embedding', 'local_bias', 'temperature'},
    }
    for kind, names in exempt.items():
        options = dict(rel_pos_bias=True) if kind == 'NeighborhoodAttention' else {}
        model = vik_mm.ViK(arch='tiny', token_mixer=dict(type=kind, **options), out_indices=(0,))
        wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))
        decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
        mixer = model.stages[0].blocks[0].token_mixer
        spared = {name for name, p in mixer.named_parameters() if p.ndim > 1 and decays[id(p)] == 0}
        assert names <= spared, (kind, spared)
        assert all('cpb' in name for name in spared - names), (kind, spared)
