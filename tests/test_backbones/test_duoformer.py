import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch.export import Dim

from vik_mm.backbones import DuoFormer
from vik_mm.errors import BadInputError

CHANNELS = (8, 12, 16, 24)
D = 32


@pytest.fixture
def make(small_arch):
    def make(scales=4, **options):
        torch.manual_seed(0)
        backbone = dict(
            type='ViK', arch=small_arch, token_mixer=dict(type='Pooling'), out_indices=tuple(range(4 - scales, 4))
        )
        small = dict(img_size=96, embed_dims=D, num_heads=4, scale_depth=2, patch_depth=2)
        return DuoFormer(backbone, CHANNELS[4 - scales :], **{**small, **options}).eval()

    return make


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(('scales', 'tokens'), [(4, 86), (3, 22), (2, 6)])
def test_the_number_of_parameters_is_exact(make, scales, tokens):
    model = make(scales)
    own = count(model) - count(model.backbone)
    projections = sum(channels * D + D for channels in CHANNELS[4 - scales :])
    blocks = 2 * (12 * D**2 + 13 * D) + 2 * (4 * D**2 + 4 * D)
    regions = 3 * 3
    assert own == projections + blocks + tokens * D + (regions + 1) * D + 2 * D + 2 * D  # two tokens, the last norm


@pytest.mark.parametrize('scales', [4, 2])
@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@pytest.mark.parametrize('size', [(96, 96), (32, 32), (33, 70), (64, 100)], ids=str)
def test_images_of_any_size_are_taken_and_every_parameter_learns(make, size, out_type, scales):
    model = make(scales, out_type=out_type)
    outs = model(torch.randn(2, 3, *size))
    if out_type == 'cls_token':
        assert [out.shape for out in outs] == [(2, D)]
    else:
        strides = (4, 8, 16, 32)[4 - scales :]
        assert [out.shape for out in outs] == [(2, D, *(-(-side // stride) for side in size)) for stride in strides]
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    own = {name: p for name, p in model.named_parameters() if not name.startswith('backbone.')}
    assert not [name for name, p in own.items() if p.grad is None or not p.grad.isfinite().all()]
    assert not [name for name, p in own.items() if not p.grad.any()]


def test_a_region_has_its_scale_token_first_and_then_its_pixels_from_coarse_to_fine_row_by_row(make):
    model = make(3)
    model.projections = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    places = torch.meshgrid(torch.arange(8), torch.arange(12), indexing='ij')
    maps = []
    for stride in (1, 2, 4):
        size = (8 // stride, 12 // stride)
        rows, columns = (place[: size[0], : size[1]] for place in places)
        maps.append((100 * stride + 12 * rows + columns)[None, None].expand(1, D, -1, -1).float())
    tokens, is_token = model.gather_regions(maps, (2, 3))
    assert is_token is None
    assert torch.equal(tokens[0, 4, 0], model.scale_token[0, 0, 0])
    row, column = 1, 1  # region 4 of 2 x 3
    middle = [200 + 12 * y + x for y in (2 * row, 2 * row + 1) for x in (2 * column, 2 * column + 1)]
    fine = [100 + 12 * y + x for y in range(4 * row, 4 * row + 4) for x in range(4 * column, 4 * column + 4)]
    assert tokens[0, 4, 1:, 0].tolist() == [400 + 12 * row + column, *middle, *fine]
    back = model.scatter_regions(tokens, (2, 3), [x.shape[2:] for x in maps])
    assert all(torch.equal(x, y) for x, y in zip(back, maps))


def maps_of(sizes, batch=2):
    torch.manual_seed(1)
    return [torch.randn(batch, channels, *size) for channels, size in zip(CHANNELS[4 - len(sizes) :], sizes)]


@torch.no_grad()
def test_padding_is_hidden_from_the_tokens_of_its_region(make):
    """Each region by itself, with the tokens that it has."""
    model = make(3)
    tokens, is_token = model.gather_regions(maps_of([(5, 9), (3, 5), (2, 3)]), (2, 3))
    assert not is_token.all()
    assert is_token.sum() == 5 * 9 + 3 * 5 + 2 * 3 + 6
    mixed = model.attend_scales(tokens, is_token)
    for region in range(6):
        there = is_token[region]
        x = (tokens[:, region] + model.scale_positions[0])[:, there]
        for block in model.scale_blocks:
            x = block(x)
        torch.testing.assert_close(mixed[:, region, there], x, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_regions_meet_only_in_patch_layers(make):
    model = make(3)
    tokens, _ = model.gather_regions(maps_of([(8, 12), (4, 6), (2, 3)]), (2, 3))
    other = tokens.clone()
    other[:, 4, 1:] += 1
    local, changed = model.attend_scales(tokens), model.attend_scales(other)
    assert [bool((a != b).any()) for a, b in zip(local.unbind(1), changed.unbind(1))] == [False] * 4 + [True, False]
    answers = [model.attend_patches(x[:, :, 0], (2, 3)) for x in (local, changed)]
    assert ((answers[0][1] - answers[1][1]).abs().amax((0, 2)) > 0).all()


@torch.no_grad()
def test_patch_layers_have_no_norm_and_no_shortcut(make):
    model = make().double()
    tokens = torch.randn(2, 9, D, dtype=torch.double)
    start = model.class_token + model.class_position
    positions = model.patch_positions.flatten(2).transpose(1, 2)
    x = torch.cat([start.expand(2, -1, -1), tokens + positions], dim=1)
    for layer in model.patch_layers:
        q, k, v = layer.qkv(x).view(2, 10, 3, 4, 8).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)
        x = layer.proj((weights @ v).transpose(1, 2).reshape(2, 10, D))
    class_token, answer = model.attend_patches(tokens, (3, 3))
    torch.testing.assert_close(class_token, x[:, 0])
    torch.testing.assert_close(answer, x[:, 1:])


@torch.no_grad()
def test_the_class_token_is_normed(make):
    model = make()
    (out,) = model(torch.randn(2, 3, 96, 96))
    assert out.mean(1).abs().max() < 1e-4
    maps, grid = model.backbone(torch.zeros(1, 3, 96, 96)), (3, 3)
    class_token, _ = model.attend_patches(model.attend_scales(*model.gather_regions(maps, grid))[:, :, 0], grid)
    torch.testing.assert_close(model(torch.zeros(1, 3, 96, 96))[0], model.norm(class_token))


@torch.no_grad()
def test_a_map_of_the_answer_adds_the_patch_layers_to_each_token_of_a_region(make):
    model = make(2, out_type='featmap')
    image = torch.randn(1, 3, 64, 96)
    tokens = model.attend_scales(*model.gather_regions(model.backbone(image), (2, 3)))
    _, answer = model.attend_patches(tokens[:, :, 0], (2, 3))
    fine, coarse = model(image)
    expected = model.norm(tokens[0, 4, 1] + answer[0, 4])
    torch.testing.assert_close(coarse[0, :, 1, 1], expected)
    expected = model.norm(tokens[0, 4, 2:] + answer[0, 4])  # row by row
    torch.testing.assert_close(fine[0, :, 2:4, 2:4].flatten(1).t(), expected)


@torch.no_grad()
def test_the_channel_token_is_made_of_the_maps_of_its_surroundings(make):
    model = make(scale_token='channel')
    maps = maps_of([(16, 24), (8, 12), (4, 6), (2, 3)])
    tokens, _ = model.gather_regions(maps, (2, 3))
    assert torch.equal(tokens[:, :, 0], model.channel_token(maps).flatten(2).transpose(1, 2))
    shrunk = [model.channel_token.shrink[i](x).shape[1:] for i, x in enumerate(maps)]
    assert shrunk == [(channels, 2, 3) for channels in CHANNELS]
    convs = [sum(isinstance(m, torch.nn.Conv2d) for m in part) for part in model.channel_token.shrink]
    assert convs == [2, 1, 0, 0]
    outs = make(scale_token='channel', norm_cfg=dict(type='GN', num_groups=1))(torch.randn(1, 3, 33, 70))
    assert outs[0].isfinite().all()


def test_a_checkpoint_of_another_image_size_gets_its_positions_resized(make, caplog):
    old, new = make(img_size=(64, 128)), make(img_size=96)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        new.load_state_dict(old.state_dict())
    finally:
        logger.removeHandler(caplog.handler)
    assert 'resized from (2, 4) regions to (3, 3)' in caplog.text
    expected = F.interpolate(old.patch_positions, (3, 3), mode='bicubic', align_corners=False, antialias=True)
    torch.testing.assert_close(new.patch_positions.data, expected.data)


@pytest.fixture
def config(small_arch):
    return dict(
        type='mmpretrain.DuoFormer',
        backbone=dict(type='ViK', arch=small_arch, out_indices=(0, 1, 2, 3)),
        in_channels=CHANNELS,
        embed_dims=D,
        num_heads=4,
        scale_depth=1,
        patch_depth=1,
    )


def test_a_classifier_takes_the_class_token(config):
    head = dict(type='LinearClsHead', num_classes=5, in_channels=D)
    model = MODELS.build(dict(type='ImageClassifier', backbone=config, head=head))
    assert model(torch.randn(1, 3, 64, 64), mode='tensor').shape == (1, 5)
    assert model.backbone.train() is model.backbone


def test_a_segmentor_takes_the_maps(config):
    registry = pytest.importorskip('mmseg.registry')
    head = dict(
        type='FPNHead',
        in_channels=[D] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=8,
        num_classes=3,
        norm_cfg=dict(type='BN'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        cfg = dict(type='EncoderDecoder', backbone={**config, 'out_type': 'featmap'}, decode_head=head)
        model = registry.MODELS.build({**cfg, 'train_cfg': {}, 'test_cfg': dict(mode='whole')})
    assert model.eval()(torch.randn(1, 3, 64, 96)).shape == (1, 3, 16, 24)


def test_a_backbone_of_another_package_is_named_by_it():
    pytest.importorskip('mmdet')
    resnet = dict(type='mmdet.ResNet', depth=18, base_channels=8, out_indices=(2, 3))
    model = DuoFormer(resnet, (32, 64), embed_dims=D, num_heads=4, scale_depth=1, patch_depth=1, out_type='featmap')
    assert [out.shape for out in model(torch.randn(1, 3, 96, 70))] == [(1, D, 6, 5), (1, D, 3, 3)]


def test_a_backbone_whose_maps_round_down_gets_a_region_more(make):
    """Of 57 pixels, such a backbone has 14, 7, 3 and 1 pixels: the fine maps need two regions."""
    model = make()
    assert model._count_regions([14, 7, 3, 1]) == 2
    tokens, is_token = model.gather_regions(maps_of([(14, 14), (7, 7), (3, 3), (1, 1)]), (2, 2))
    assert is_token.sum() == 14**2 + 7**2 + 3**2 + 1 + 4
    assert model.attend_scales(tokens, is_token).isfinite().all()


class TwoMaps(torch.nn.Module):
    """A backbone that is traced fast: maps of strides 16 and 32."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, CHANNELS[2], 17, stride=16, padding=8)
        self.last = torch.nn.Conv2d(CHANNELS[2], CHANNELS[3], 3, stride=2, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return x, self.last(x)


@torch.no_grad()
def test_one_exported_program_serves_all_sizes(make):
    model = make(2, out_type='featmap', scale_depth=1, patch_depth=1)
    model.backbone = TwoMaps()
    any_size = getattr(Dim, 'AUTO', None)
    axes = {axis: any_size or Dim(name, min=33, max=4096) for axis, name in ((2, 'height'), (3, 'width'))}
    program = torch.export.export(model, (torch.randn(1, 3, 160, 96),), dynamic_shapes=(axes,), strict=False).module()
    for size in [(160, 96), (96, 128), (70, 100)]:
        x = torch.randn(1, 3, *size)
        for ours, theirs in zip(model(x), program(x)):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_heads=5), 'num_heads=5 must divide embed_dims=32'),
        (dict(scale_token='mean'), r"scale_token='mean' is unknown; choose one of \['random', 'channel'\]"),
        (dict(out_type='raw'), r"out_type='raw' is unknown; choose one of \['cls_token', 'featmap'\]"),
        (dict(patch_depth=-1), 'patch_depth=-1 must not be negative'),
        (dict(scales=1), 'must list the channels of 2, 3 or 4 maps'),
    ],
    ids=['heads', 'token', 'out-type', 'depth', 'scales'],
)
def test_bad_options_are_named(make, options, text):
    with pytest.raises(BadInputError, match=text):
        make(**options)


def test_maps_that_in_channels_does_not_describe_are_named(make):
    model = make()
    model.in_channels = (8, 12, 16, 32)
    with pytest.raises(BadInputError, match=r'ViK gives maps of \(8, 12, 16, 24\) channels'):
        model(torch.randn(1, 3, 64, 64))
    with pytest.raises(BadInputError, match=r'sides \[16, 8, 8, 8\]; each must be half as long'):
        model._count_regions([16, 8, 8, 8])


def test_a_backbone_that_is_no_config_is_refused():
    with pytest.raises(BadInputError, match='backbone must be a dict with a type'):
        DuoFormer('ResNet', (256, 512, 1024, 2048))
    with pytest.raises(BadInputError, match="type 'ResNett' is not registered in MMPretrain"):
        DuoFormer(dict(type='ResNett', depth=50), (256, 512, 1024, 2048))
