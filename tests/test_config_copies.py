"""Models of configs/_base_ that follow a config of the mm packages: they differ from it where this file says so.

The packages' own files are no bases, so that configs load in every promised environment. For ``mmseg::``, OneDL's
MMEngine looks for a package called mmsegmentation, which OneDL's is not. For any ``package::``, MMEngine 0.10.7 imports
pkg_resources, which setuptools has not had since 82.
"""

import pytest
from mmengine.config import Config

from vik_mm_cli.config_files import find_config

SEGMENTATION = {
    'pretrained',  # ResNet's weights
    'backbone',
    'data_preprocessor.size',  # theirs is given in the configs of data sets
    'decode_head.num_classes',  # ADE20K's instead of Cityscapes'
}
DETECTION = {'backbone', 'neck.in_channels'}
CHANGED = {
    ('mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'mask-rcnn_vik_fpn'): DETECTION
    # theirs say the default, True
    | {'train_cfg.rpn.assigner.match_low_quality', 'train_cfg.rcnn.assigner.match_low_quality'},
    ('mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py', 'cascade-mask-rcnn_vik_fpn'): DETECTION
    | {
        'train_cfg.rpn.assigner.match_low_quality',
    },
    ('mmdet::_base_/models/retinanet_r50_fpn.py', 'retinanet_vik_fpn'): DETECTION
    | {'neck.start_level'},  # the backbone leaves the first map out
    ('mmseg::_base_/models/fpn_r50.py', 'fpn_vik'): SEGMENTATION | {'neck.in_channels'},
    ('mmseg::_base_/models/upernet_r50.py', 'upernet_vik'): SEGMENTATION
    | {'decode_head.in_channels', 'auxiliary_head.in_channels', 'auxiliary_head.num_classes'},
}


def differences(theirs, ours, at=''):
    """The keys, dotted, whose values differ or that one of two configs lacks; backbones are compared as one."""
    if at == 'backbone' or not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return set() if theirs == ours else {at}
    missing = object()
    return {
        found
        for key in theirs.keys() | ours.keys()
        for found in differences(theirs.get(key, missing), ours.get(key, missing), f'{at}.{key}'.lstrip('.'))
    }


@pytest.mark.parametrize(('theirs', 'ours'), CHANGED, ids=[ours for _, ours in CHANGED])
def test_a_copied_model_differs_only_where_said(root, theirs, ours):
    shipped = Config.fromfile(find_config(theirs)).model.to_dict()
    copy = Config.fromfile(root / f'configs/_base_/models/{ours}.py').model.to_dict()
    assert differences(shipped, copy) == CHANGED[theirs, ours]


def test_a_drift_is_found():
    theirs, ours = dict(head=dict(norm=dict(type='BN'), convs=3)), dict(head=dict(norm=dict(type='GN'), width=8))
    assert differences(theirs, ours) == {'head.norm.type', 'head.convs', 'head.width'}
    assert differences(ours, ours) == set()
