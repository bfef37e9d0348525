"""What is measured: comparisons as data. A comparison's contenders run in turn; all ratios are to its first one."""

import timm
import torch
from baselines import BSplineKANLayer, ExplicitAttention, FastKANLayer, ReleasedViK
from comparison import Comparison, Step
from downstream import whole_step
from mmpretrain.registry import MODELS

from vik_mm import ViK, ViTKArAt
from vik_mm.checkpoints.release_keys import to_release
from vik_mm.layers import RBFKANLayer
from vik_mm.ops import rbf_kan

TRAINING, INFERENCE = 'training', 'inference'  # forward and backward without optimizer step; forward without gradients


def image(batch, size, device):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1)).to(device)


def step_of_model(model, x, mode, answer=None, module=None) -> Step:
    """Wrap a model: ``answer`` computes the logits, ``module`` is what MACs are counted of."""
    model.train(mode == TRAINING)
    forward = answer or model

    def run():
        if mode == INFERENCE:
            with torch.no_grad():
                out = forward(x)
            return [out] if isinstance(out, torch.Tensor) else list(out)
        out = forward(x)
        out = out if isinstance(out, torch.Tensor) else sum(o.float().mean() for o in out)
        (out.float().logsumexp(1).sum() if out.ndim == 2 else out.float().mean()).backward()
        model.zero_grad(set_to_none=True)
        return []

    return Step(run, forward, module or model, x)


# ---- the operator

OPERATOR_INPUTS = 49, 8, 49


def operator_step(rows, mode, backend, compiled=False):
    def make(device):
        num_in, num_grids, num_out = OPERATOR_INPUTS
        torch.manual_seed(0)
        dtype = torch.bfloat16 if device == 'cuda' else torch.float32
        x = torch.randn(rows, num_in, device=device, dtype=dtype)
        centers = torch.linspace(-2, 2, num_grids, device=device).repeat(num_in, 1)
        widths = torch.full((num_in, num_grids), 4 / 7, device=device)
        weight = 0.1 * torch.randn(num_in * num_grids, num_out, device=device)
        tensors = [x, centers, widths, weight]

        def call(*arguments):
            return rbf_kan(*arguments, backend=backend)

        function = torch.compile(call, dynamic=False) if compiled else call

        def run():
            if mode == INFERENCE:
                with torch.no_grad():
                    return [function(*tensors)]
            inputs = [t.requires_grad_() for t in tensors]
            out = function(*inputs)
            return [out, *torch.autograd.grad(out, inputs, torch.ones_like(out))]

        passes = 1 if mode == INFERENCE else 3
        traffic = passes * 2 * x.nbytes  # forward reads and writes rows; backward reads two and writes one
        products = passes * rows * num_in * num_grids * num_out
        return Step(run, lambda _: function(*tensors), None, x, products, traffic)

    return make


def layer_step(rows, mode, layer):
    def make(device):
        torch.manual_seed(0)
        module = layer(49, 49).to(device)
        x = torch.randn(rows, 49, device=device, requires_grad=True)

        def run():
            if mode == INFERENCE:
                with torch.no_grad():
                    return [module(x)]
            out = module(x)
            return [out, *torch.autograd.grad(out, [x, *module.parameters()], torch.ones_like(out))]

        return Step(run, None, module, x)

    return make


def operator_comparisons(tiny=False):
    for rows in (256,) if tiny else (32768, 200000):
        for mode in (INFERENCE, TRAINING):
            small = rows == 32768
            contenders = {backend: operator_step(rows, mode, backend) for backend in ('reference', 'chunked')}
            if torch.cuda.is_available():
                contenders['triton'] = operator_step(rows, mode, 'triton')
            if not tiny:
                contenders['compiled reference'] = operator_step(rows, mode, 'reference', compiled=True)
            name = 'forward' if mode == INFERENCE else 'forward and backward'
            yield Comparison(
                f'operator, {rows} rows, {name}',
                contenders,
                rounds=9,
                small=small,
                memory=not tiny,
                agree=tuple(contenders),
            )
            layers = {'reference layer': lambda *a: RBFKANLayer(*a, backend='reference'), 'RBFKANLayer': RBFKANLayer}
            layers |= {'FastKAN': FastKANLayer, 'B-spline KAN': BSplineKANLayer}
            contenders = {name: layer_step(rows, mode, layer) for name, layer in layers.items()}
            yield Comparison(f'layer, {rows} rows, {name}', contenders, rounds=9, memory=False)


# ---- against the release, equal weights


def classifier(arch, size):
    """ViK with a linear head, off its start values so that every layer counts."""
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ViK', arch=arch, img_size=size, layer_scale_init_value=0.3),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=ViK.arch_settings[arch]['embed_dims'][-1]),
        )
    )


def logits(model):
    return lambda x: model.head(model.extract_feat(x))


def ours(arch, mode, batch, size):
    def make(device):
        model = classifier(arch, size).to(device)
        return step_of_model(model, image(batch, size, device), mode, logits(model))

    return make


def release(arch, mode, batch, size):
    def make(device):
        model = ReleasedViK(**ViK.arch_settings[arch], img_size=size)
        model.load_state_dict(to_release(classifier(arch, size).state_dict()), strict=True)
        return step_of_model(model.to(device), image(batch, size, device), mode)

    return make


def release_comparisons():
    batches = (256,) if torch.cuda.is_available() else (1, 8)
    for arch in ('small', 'base'):
        for mode in (INFERENCE, TRAINING):
            for batch in batches:
                if mode == TRAINING and batch == 1:
                    continue
                contenders = dict(release=release(arch, mode, batch, 224), ViK=ours(arch, mode, batch, 224))
                name = f'vik-{arch} {mode} {batch}x3x224x224'
                yield Comparison(name, contenders, images=batch, small=arch == 'small', agree=tuple(contenders))


# ---- against its peers


def timm_model(name, mode, batch, size, fixed_size=False):
    def make(device):
        torch.manual_seed(0)
        model = timm.create_model(name, **(dict(img_size=size) if fixed_size else {})).to(device)
        return step_of_model(model, image(batch, size, device), mode)

    return make


# timm's names, and whether positions or mixing weights for each pixel have the model built for one size.
PEERS = {
    'PoolFormer-S12': ('poolformer_s12', False),
    'PoolFormer-S24': ('poolformer_s24', False),
    'DeiT-Tiny': ('deit_tiny_patch16_224', True),
    'DeiT-Small': ('deit_small_patch16_224', True),
    'PVTv2-B1': ('pvt_v2_b1', False),
    'ResMLP-S12': ('resmlp_12_224', True),
    'Swin-T': ('swin_tiny_patch4_window7_224', True),
    'ResNet-18': ('resnet18', False),
    'ResNet-50': ('resnet50', False),
}


def peer_comparisons():
    cuda = torch.cuda.is_available()
    settings = [(INFERENCE, 1, size) for size in (224, 448, 896, 1792)]
    settings += [(INFERENCE, 256, 224), (TRAINING, 256, 224)] if cuda else [(INFERENCE, 8, 224), (TRAINING, 8, 224)]
    rounds = {224: 15, 448: 11, 896: 7, 1792: 3}
    for mode, batch, size in settings:
        names = PEERS if size < 1792 or cuda else {k: v for k, v in PEERS.items() if k != 'DeiT-Small'}
        contenders = {label: timm_model(name, mode, batch, size, fixed) for label, (name, fixed) in names.items()}
        contenders['ViK-S'] = ours('small', mode, batch, size)
        contenders['ViK-B'] = ours('base', mode, batch, size)
        contenders['ViK-S, release'] = release('small', mode, batch, size)
        name = f'{mode} {batch}x3x{size}x{size}'
        yield Comparison(name, contenders, images=batch, rounds=rounds[size], small=False)


def scaling_comparisons(tiny=False):
    """One image of growing size: against the floor, PoolFormer-S12, which has ViK-S's macro design."""
    for size, rounds in ((224, 2),) if tiny else ((224, 31), (448, 15), (896, 9), (1792, 5)):
        contenders = {'PoolFormer-S12': timm_model('poolformer_s12', INFERENCE, 1, size)}
        contenders['ViK-S'] = ours('small', INFERENCE, 1, size)
        contenders['ViK-S, release'] = release('small', INFERENCE, 1, size)
        name = f'inference 1x3x{size}x{size}'
        yield Comparison(name, contenders, images=1, rounds=rounds, small=size < 896, memory=False)


def bar_comparisons(tiny=False):
    """Overhead above the floor: of the three medians, (ViK-S - PoolFormer-S12) / (release - PoolFormer-S12)."""
    batch = 1 if tiny else 8
    for mode in (INFERENCE, TRAINING):
        contenders = {'PoolFormer-S12': timm_model('poolformer_s12', mode, batch, 224)}
        contenders |= {'ViK-S': ours('small', mode, batch, 224), 'ViK-S, release': release('small', mode, batch, 224)}
        yield Comparison(
            f'overhead, {mode} {batch}x3x224x224', contenders, images=batch, rounds=2 if tiny else 15, memory=False
        )


TRAINERS = ('PoolFormer-S12', 'DeiT-Small', 'Swin-T')


def trainer_comparisons(tiny=False):
    """Images a second and memory of training at 224 pixels, as on one GPU of a cluster."""
    batch, size = (2, 64) if tiny else (128, 224) if torch.cuda.is_available() else (8, 224)
    models = {label: PEERS[label] for label in TRAINERS} | {'ConvNeXt-T': ('convnext_tiny', False)}
    for mode in (TRAINING, INFERENCE):
        contenders = {label: timm_model(name, mode, batch, size, fixed) for label, (name, fixed) in models.items()}
        contenders['ViK-S'] = ours('small', mode, batch, size)
        if not tiny:
            contenders['ViK-S, release'] = release('small', mode, batch, size)
        yield Comparison(
            f'{mode} {batch}x3x{size}x{size}', contenders, images=batch, rounds=2 if tiny else 10, memory=not tiny
        )


# ---- attention

SOFTMAX, KARAT = dict(type='Softmax'), dict(type='KArAt', grid_size=3)  # G3B
ATTENTIONS = {
    'softmax, explicit': (SOFTMAX, True),
    'softmax': (SOFTMAX, False),
    'KArAt, naive': (KARAT | dict(backend='reference'), True),
    'KArAt': (KARAT, False),
    'KArAt, universal': (KARAT | dict(universal=True), False),
}


def attention_step(attn_cfg, explicit, mode, batch):
    def make(device):
        torch.manual_seed(0)
        model = ViTKArAt('tiny', attn_cfg=attn_cfg).to(device)
        if explicit:
            for layer in model.layers:
                layer.attn = ExplicitAttention(layer.attn)
        return step_of_model(model, image(batch, 224, device), mode)

    return make


def karat_comparisons():
    """ViT-Tiny at 224 pixels, the paper's batch of 32."""
    for mode in (INFERENCE, TRAINING):
        contenders = {name: attention_step(*options, mode, 32) for name, options in ATTENTIONS.items()}
        yield Comparison(
            f'ViT-Tiny, {mode} 32x3x224x224', contenders, images=32, rounds=7, agree=('KArAt, naive', 'KArAt')
        )


# ---- under a detector and a segmentor

DOWNSTREAM = {
    'Mask R-CNN': ('detection/mask-rcnn_vik-s_fpn_1x_coco.py', 800, 1333),
    'Semantic FPN': ('segmentation/fpn_vik-s_8xb4-40k_ade20k-512x512.py', 512, 512),
}


def backbone_step(mixer, mode, size):
    """Only the backbone, with its maps for a neck."""

    def make(device):
        torch.manual_seed(0)
        model = ViK(img_size=224, out_indices=(0, 1, 2, 3), token_mixer=mixer).to(device)
        x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).to(device)
        return step_of_model(model, x, mode)

    return make


def downstream_comparisons(tiny=False):
    # ViK with the mixer of PoolFormer is PoolFormer-S12.
    mixers = {'PoolFormer-S12': dict(type='Pooling'), 'ViK-S': dict(type='MultiPatchRBFKAN')}
    for name, (config, height, width) in DOWNSTREAM.items():
        if tiny:
            height, width = 64, 96
        for mode in (INFERENCE, TRAINING):
            title = f'{mode} 1x3x{height}x{width}'
            whole = {label: whole_step(config, mixer, mode, height, width) for label, mixer in mixers.items()}
            yield Comparison(f'{name}, {title}', whole, images=1, rounds=5, memory=not tiny)
            backbones = {label: backbone_step(mixer, mode, (height, width)) for label, mixer in mixers.items()}
            yield Comparison(f'backbone of {name}, {title}', backbones, images=1, rounds=7, memory=not tiny)


SUITES = dict(
    operator=operator_comparisons,
    release=release_comparisons,
    scaling=scaling_comparisons,
    bars=bar_comparisons,
    peers=peer_comparisons,
    trainers=trainer_comparisons,
    karat=karat_comparisons,
    downstream=downstream_comparisons,
)
