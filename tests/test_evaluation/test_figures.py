"""Figures of hand-made predictions, and of whole runs against tools/test.py."""

import json
import math
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from vik_mm.config.machine import without_sync_bn
from vik_mm.evaluation import average_precision
from vik_mm.evaluation.classification import classification_figures, confident_mistakes
from vik_mm.evaluation.coco import choose_package
from vik_mm.evaluation.detection import ASPECTS, DetectionEvaluation
from vik_mm.evaluation.findings import findings
from vik_mm.evaluation.matching import confusion_matrix, f1_curves, match_image, outcome
from vik_mm.evaluation.records import ClassifiedImage, DetectedImage, PredictionRecords
from vik_mm.evaluation.segmentation import segmentation_figures


@pytest.fixture(autouse=True)
def scope():
    """Tools set the default scope of the whole process."""
    yield
    init_default_scope('mmpretrain')


@pytest.fixture(scope='module')
def noisy(shapes_folder):
    """The truth of the shapes, with a crowd, and detections that shift and confuse it."""
    from pycocotools import mask as mask_util

    truth = json.loads((shapes_folder / 'coco/annotations/instances_train2017.json').read_text())
    truth['annotations'][2]['iscrowd'] = 1
    rng = np.random.default_rng(0)
    records = []
    for image in truth['images']:
        found = []
        for annotation in truth['annotations']:
            for _ in range(rng.integers(0, 3) if annotation['image_id'] == image['id'] else 0):
                mask = np.roll(mask_util.decode(annotation['segmentation']), rng.integers(-3, 4, 2), (0, 1))
                label = annotation['category_id'] - 1 if rng.random() < 0.7 else int(rng.integers(8))
                found.append((label, float(rng.random()), mask_util.encode(np.asfortranarray(mask))))
        boxes = np.array([mask_util.toBbox(code) for _, _, code in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels, scores = np.array([f[0] for f in found], np.int64), np.array([f[1] for f in found])
        masks = [code for _, _, code in found]
        records.append(DetectedImage('', 0, image['id'], (64, 64), boxes, scores, labels, masks, None))
    return records, truth


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_faster_coco_eval_and_pycocotools_agree_to_a_millionth_in_all_strata(noisy, kind):
    pytest.importorskip('faster_coco_eval')
    assert choose_package() == 'faster-coco-eval'
    fast, plain = (DetectionEvaluation(*noisy, package=name).figures() for name in (None, 'pycocotools'))
    assert 0.05 < fast[kind]['headline']['ap'] < 0.95
    for part in ('headline', 'per_class', 'sizes', 'quartiles', 'aspects'):
        rows = [fast[kind][part], plain[kind][part]]
        for one, other in zip(*([row] if isinstance(row, dict) else row for row in rows)):
            for key, value in one.items():
                assert value == other[key] if isinstance(value, str) else value is None or _near(value, other[key]), key


def _near(a, b):
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= 1e-6


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_the_figures_are_those_of_pycocotools_own_summary(noisy, kind, monkeypatch, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    records, truth = noisy
    evaluation = DetectionEvaluation(records, truth, (100, 300, 1000))
    gt = COCO()
    gt.dataset = json.loads(json.dumps(truth))
    gt.createIndex()
    found = [entry for record in records for entry in evaluation._detections(record, kind)]
    keys = ('image_id', 'category_id', 'score', 'bbox' if kind == 'bbox' else 'segmentation')
    run = COCOeval(gt, gt.loadRes([{key: entry[key] for key in keys} for entry in found]), kind)
    run.params.maxDets = [100, 300, 1000]
    run.evaluate()
    run.accumulate()
    run.summarize()
    figures = evaluation.figures()[kind]
    ours = [figures['headline'][key] for key in ('ap', 'ap50', 'ap75')] + [row['ap'] for row in figures['sizes']]
    assert [v if v > -1 else math.nan for v in run.stats[:6]] == pytest.approx(ours, abs=1e-6, nan_ok=True)
    assert run.stats[8] == pytest.approx(figures['headline']['ar'], abs=1e-6)


@pytest.mark.parametrize('package', ['faster-coco-eval', 'pycocotools'])
def test_no_detection_at_all_is_an_ap_of_zero(noisy, package):
    if package == 'faster-coco-eval':
        pytest.importorskip('faster_coco_eval')
    assert average_precision(noisy[1], [], 'segm', range(1, 9), package=package).mean() == 0


def test_the_confusion_matrix_agrees_with_f1_and_counts_every_object(noisy):
    evaluation = DetectionEvaluation(*noisy, threshold=0.5)
    matrix = confusion_matrix(evaluation.matches['segm'], 8, 0.5)
    right, found, objects = matrix[:-1, :-1].trace(), matrix[:, :-1].sum(), matrix[:-1].sum()
    assert objects == sum(not a['iscrowd'] for a in noisy[1]['annotations'])
    curves = f1_curves(evaluation.matches['segm'], evaluation.classes)
    assert curves['f1'][50] == pytest.approx(2 * right / (found + objects))
    assert max(v for v in curves['f1'] if v == v) <= evaluation_f1(evaluation, curves['best']) + 1e-9


def evaluation_f1(evaluation, threshold):
    matrix = confusion_matrix(evaluation.matches['segm'], 8, threshold)
    return 2 * matrix[:-1, :-1].trace() / (matrix[:, :-1].sum() + matrix[:-1].sum())


def test_a_crowd_is_neither_missed_nor_a_false_alarm():
    box = [0.0, 0.0, 10.0, 10.0]
    image = match_image([dict(label=0, score=0.9, bbox=box)], [dict(label=0, bbox=box, iscrowd=1)], 'bbox')
    result = outcome(image, 0.5)
    assert not result.kept.any() and not result.missed.any()


def test_a_wrong_class_on_an_object_is_a_confusion_and_a_second_detection_a_false_alarm():
    box, far = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 5.0, 5.0]
    found = [dict(label=1, score=0.9, bbox=box), dict(label=1, score=0.8, bbox=box), dict(label=0, score=0.1, bbox=far)]
    objects = [dict(label=0, bbox=box, iscrowd=0), dict(label=0, bbox=far, iscrowd=0)]
    matrix = confusion_matrix([match_image(found, objects, 'bbox')], 2, 0.5)
    assert matrix.tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 0]]


def test_strata_of_shape_hold_the_objects_of_that_shape(noisy):
    rows = DetectionEvaluation(*noisy).figures()['bbox']['aspects']
    assert [row['name'] for row in rows] == list(ASPECTS)
    aspects = [a['bbox'][2] / a['bbox'][3] for a in noisy[1]['annotations'] if not a['iscrowd']]
    assert rows[1]['objects'] == sum(0.5 <= v <= 2 for v in aspects)


def test_classification_figures_of_four_images():
    scores = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.7, 0.2, 0.1]], np.float32)
    records = [ClassifiedImage('', k, s, label) for k, (s, label) in enumerate(zip(scores, (0, 0, 1, 1)))]
    figures = classification_figures(records, ['a', 'b', 'never'])
    assert figures['headline']['top1'] == 0.75 and figures['confusion'] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert [row['recall'] for row in figures['per_class'][:2]] == [1, 0.5]
    assert figures['headline']['macro_precision'] == pytest.approx((2 / 3 + 1) / 2)
    # Each image has a bin of its own: 0.1, 0.4, 0.2 and 0.7 from right or wrong.
    assert figures['calibration']['ece'] == pytest.approx((0.1 + 0.4 + 0.2 + 0.7) / 4, abs=1e-6)
    assert confident_mistakes(records, 5) == [3]
    text = ' '.join(findings('classification', figures))
    assert 'b is taken for a, 1 images or 50% of that class' in text and 'never' in text


def test_segmentation_figures_leave_ignored_pixels_out_and_keep_the_worst_maps():
    metric = PredictionRecords(num_pictures=1)
    metric.dataset_meta = dict(classes=('a', 'b'))
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    truth[:, :, 4:], truth[:, 0] = 1, 255
    for wrong in (1, 5, 3):
        prediction = truth.clamp(max=1).clone()
        prediction[0, 1, :wrong] = 1 - prediction[0, 1, :wrong]
        metric.process({}, [dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=truth), img_path='x')])
    assert [record.maps is not None for record in metric.results] == [False, True, False]
    figures = segmentation_figures(metric.results, ['a', 'b'])
    assert np.sum(figures['confusion']) == 3 * 56
    assert figures['headline']['pixel_accuracy'] == pytest.approx(1 - 9 / 168)
    assert figures['confusions'][0] == dict(truth='a', prediction='b', count=8, share=pytest.approx(8 / 84))


@pytest.fixture
def checkpoint(tmp_path):
    def make(config):
        cfg = Config.fromfile(config)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        if 'data_preprocessor' in cfg:
            cfg.model.data_preprocessor = cfg.data_preprocessor
        model = MODELS.build(without_sync_bn(cfg.model))
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
        return tmp_path / 'model.pth'

    return make


PRINTED = {
    'classification': {'accuracy/top1': 'top1', 'accuracy/top5': 'top5'},
    'detection': {f'coco/{kind}_mAP{end}': f'{kind} ap{end[1:]}' for kind in ('bbox', 'segm') for end in ('', '_50')},
    'segmentation': {'aAcc': 'pixel_accuracy', 'mIoU': 'miou', 'mAcc': 'mean_accuracy'},
}


@pytest.mark.parametrize(
    'task, options',
    [*((task, []) for task in PRINTED), ('detection', ['--tile', 48]), ('segmentation', ['--tile', 48]),
     ('classification', ['--tta'])],
    ids=lambda value: value if isinstance(value, str) else ' '.join(map(str, value)) or 'whole',
)  # fmt: skip
def test_the_report_has_the_figures_that_the_test_tool_prints(
    tmp_path, make_config, checkpoint, call_tool, task, options
):
    more = 'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0)))\n' if task == 'detection' else ''
    config = make_config(task, more)
    weights = checkpoint(config)
    code, text = call_tool('test.py', config, weights, *options)
    assert code is None, text
    code, told = call_tool('evaluate.py', config, weights, *options, '--out', tmp_path / 'report')
    assert code is None and 'report.html' in told, told
    figures = json.loads((tmp_path / 'report/figures.json').read_text())['figures']
    scale, digits = (1, 6e-4) if task == 'detection' else (100, 6e-3)
    for printed, key in PRINTED[task].items():
        value = float(re.findall(rf'{printed}: (\S+)', text)[-1])
        kind, _, name = key.rpartition(' ')
        ours = (figures[kind] if kind else figures)['headline'][name]
        assert scale * ours == pytest.approx(value, abs=digits), printed
    page = (tmp_path / 'report/report.html').read_text()
    assert list((tmp_path / 'report/plots').glob('*.png'))
    assert not re.search(r'(src|href)="(?!data:|#)', page) and 'url(http' not in page


def test_the_val_split_is_taken_where_there_is_no_other(tmp_path, make_config, checkpoint, call_tool):
    config = make_config('classification', 'test_dataloader = None\ntest_evaluator = None\ntest_cfg = None\n')
    weights = checkpoint(config)
    code, _ = call_tool('evaluate.py', config, weights, '--split', 'test', '--out', tmp_path / 'r')
    assert 'no test_dataloader' in code and '--split val' in code
    code, text = call_tool('evaluate.py', config, weights, '--out', tmp_path / 'r')
    assert code is None, text
    assert json.loads((tmp_path / 'r/figures.json').read_text())['split'] == 'val'
