"""The Python API: what is loaded, what may be given to it, and what comes back."""

import itertools
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pictures import PIXELS, write
from PIL import Image

import vik_mm
from vik_mm.compat.registered_only import builds_registered_only
from vik_mm.config.literals import parse_literal_config
from vik_mm.errors import BadInputError, UnavailableError
from vik_mm.inference import Model, Result
from vik_mm.inference.masks import encode

TASKS = ('classification', 'detection', 'segmentation')


@pytest.fixture
def make_model(make_config, checkpoint):
    def make(task, change=None, **options):
        config = make_config(task)
        weights = checkpoint(config)
        cfg = Config.fromfile(config)
        if change:
            change(cfg)
        return Model(cfg, weights, **options)

    return make


def assert_same(one, other):
    """Predictions agree, up to the rounding of another batch size."""
    for name in ('labels', 'segmentation'):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ('scores', 'boxes', 'probabilities'):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None) and (a is None or np.allclose(a, b, atol=1e-4)), name
    assert one.size == other.size and (one.mask_codes is None) == (other.mask_codes is None)


class TestLoading:
    @pytest.mark.parametrize('task', TASKS)
    def test_a_checkpoint_of_a_training_is_enough(self, tmp_path, make_config, checkpoint, task):
        config = make_config(task)
        content = torch.load(checkpoint(config))
        content['meta'] = dict(cfg=Config.fromfile(config).pretty_text)
        torch.save(content, tmp_path / 'trained.pth')
        image = write(tmp_path / 'a.png')
        expected = vik_mm.load(config, tmp_path / 'model.pth').predict(image, score_thr=0)[0].to_dict()
        assert vik_mm.load(tmp_path / 'trained.pth').predict(image, score_thr=0)[0].to_dict() == expected
        assert not builds_registered_only()

    def test_a_config_that_was_dumped_beside_the_checkpoint_is_found(self, tmp_path, make_config, checkpoint):
        config = make_config('classification')
        cfg = Config.fromfile(config)
        folder = tmp_path / 'run'
        folder.mkdir()
        weights = checkpoint(config).rename(folder / 'slim.pth')
        with pytest.raises(BadInputError, match=r'holds no config, and none was found beside it; give the config too'):
            vik_mm.load(weights)
        cfg.dump(folder / 'dumped.py')
        (folder / 'program.py').write_text('import os\n')
        found = vik_mm.load(weights)
        assert found.task == 'classification' and found.checkpoint == str(weights)
        assert found.cfg.model.to_dict() == cfg.model.to_dict()
        assert_same(found.predict(PIXELS)[0], vik_mm.load(config, weights).predict(PIXELS)[0])
        cfg.dump(folder / 'other.py')
        with pytest.raises(BadInputError, match='several configs beside it'):
            vik_mm.load(weights)

    @pytest.mark.parametrize(
        'text',
        [
            "open('{file}', 'w')",
            "model = dict(type=open('{file}', 'w'))",
            "model = [x for x in open('{file}', 'w')]",
            "import os\nmodel = dict(type='ImageClassifier')",
            "model = dict(**dict(type=open('{file}', 'w')))",
            "model.x = open('{file}', 'w')",
        ],
        ids=['call', 'call in a value', 'loop', 'import', 'call in stars', 'attribute'],
    )
    def test_python_in_a_checkpoint_does_not_run(self, tmp_path, text):
        meta = dict(cfg=text.format(file=tmp_path / 'ran'))
        torch.save(dict(state_dict=dict(a=torch.zeros(1)), meta=meta), tmp_path / 'a.pth')
        with pytest.raises(BadInputError, match='is no plain value, and nothing is run to read it'):
            vik_mm.load(tmp_path / 'a.pth')
        assert not (tmp_path / 'ran').exists()

    def test_a_class_that_is_not_registered_is_refused_with_what_to_do(self, tmp_path, make_config):
        cfg = Config.fromfile(make_config('classification'))
        cfg.model.head.type = 'os.system'
        torch.save(dict(state_dict=dict(a=torch.zeros(1)), meta=dict(cfg=cfg.pretty_text)), tmp_path / 'a.pth')
        with pytest.raises(BadInputError, match=r"'os.system' is not registered .* give the config too: vik_mm\.load"):
            vik_mm.load(tmp_path / 'a.pth')
        assert not builds_registered_only()

    def test_a_text_of_values_reads_as_mmengine_would(self, make_config):
        cfg = Config.fromfile(make_config('detection'))
        cfg.odd = dict(a=-1.5, b={1: (2,), 'c d': None}, c=[], d=b'x', e=True)
        assert parse_literal_config(cfg.pretty_text, 'x').to_dict() == cfg.to_dict()

    @pytest.mark.parametrize(
        'text', ['a = (', 'a = {[1]: 2}', "_base_ = 'x.py'", "filename = 'x'", 'a = ' + '[' * 500 + ']' * 500]
    )
    def test_a_text_that_is_no_config_is_an_error_of_the_file(self, text):
        with pytest.raises(BadInputError, match='my file'):
            parse_literal_config(text, 'my file')

    def test_files_in_the_wrong_place_are_named(self, tmp_path, make_config):
        config = make_config('classification')
        with pytest.raises(BadInputError, match='is a config, which needs weights'):
            vik_mm.load(config)
        with pytest.raises(FileNotFoundError, match='nothing.pth does not exist'):
            vik_mm.load(tmp_path / 'nothing.pth')
        with pytest.raises(FileNotFoundError, match='nothing.onnx does not exist'):
            vik_mm.load(config, tmp_path / 'nothing.onnx')


class TestInputs:
    def test_a_picture_is_the_same_as_file_array_and_pil(self, tmp_path, make_model):
        model = make_model('detection')
        path = write(tmp_path / 'a.png')
        pil = Image.open(path)
        (expected,) = model.predict(path, score_thr=0)
        assert len(expected)
        for given in (str(path), PIXELS, pil, [PIXELS], np.dstack([PIXELS, PIXELS[..., 0]]), pil.convert('RGBA')):
            assert_same(model.predict(given, score_thr=0)[0], expected)
        assert_same(model.predict(PIXELS[..., ::-1], score_thr=0, channel_order='BGR')[0], expected)
        swapped = model.predict(PIXELS[..., ::-1], score_thr=0)[0]
        assert not np.array_equal(swapped.scores, expected.scores)

    @pytest.mark.parametrize('color_type', ['color', 'grayscale', 'unchanged', 'color_ignore_orientation'])
    def test_pil_and_files_agree_in_every_way_to_load(self, tmp_path, make_model, color_type):
        def change(cfg):
            cfg.test_dataloader.dataset.pipeline[0].update(color_type=color_type, to_float32=True)

        pipeline = make_model('classification', change)._predictor.pipeline
        exif = Image.Exif()
        exif[0x112] = 6  # to be turned by 90 degrees
        for name, mode in (('a.png', 'RGB'), ('b.png', 'RGBA'), ('c.png', 'L')):
            path = tmp_path / name
            Image.fromarray(PIXELS).convert(mode).save(path, exif=exif)
            loaded, given = pipeline.read(path), pipeline.take(Image.open(path))
            assert given['img'].shape == loaded['img'].shape and given['img'].dtype == loaded['img'].dtype == np.float32
            assert np.abs(given['img'] - loaded['img']).max() <= 1  # grey is rounded
            assert given['ori_shape'] == loaded['ori_shape']

    @pytest.mark.parametrize(
        'image, match',
        [
            (PIXELS / 255, 'must be uint8'),
            (PIXELS.transpose(2, 0, 1), 'channels in its last axis'),
            (PIXELS[:0], r'shape \(0, 91, 3\)'),
            (PIXELS[None], r'shape \(1, 50, 91, 3\)'),
            (torch.zeros(3, 4, 4), 'permute'),
            ([torch.zeros(3, 4, 4)], r'image 0: .*permute'),
            (7, 'int is no image'),
            (dict(a=PIXELS), 'dict is no image'),
            (None, 'NoneType is no image'),
        ],
        ids=['float', 'channels first', 'empty', 'batch', 'tensor', 'list of tensors', 'number', 'dict', 'None'],
    )
    def test_what_is_no_picture_is_refused_with_what_is(self, make_model, image, match):
        with pytest.raises(BadInputError, match=match):
            make_model('classification').predict(image)

    def test_folders_lists_and_generators_keep_their_order(self, tmp_path, make_model):
        model = make_model('classification')
        paths = [write(tmp_path / 'images' / f'{name}.png') for name in ('b', 'a')]
        assert [Path(r.path).name for r in model.predict(tmp_path / 'images')] == ['a.png', 'b.png']
        results = model.predict([*paths, PIXELS, tmp_path / 'images'], batch_size=3)
        assert [r.path and Path(r.path).name for r in results] == ['b.png', 'a.png', None, 'a.png', 'b.png']
        with pytest.raises(FileNotFoundError, match=r'c\.png does not exist'):
            model.predict([PIXELS, tmp_path / 'c.png'])

    def test_a_generator_is_asked_no_further_than_needed(self, make_model):
        taken = itertools.count()
        results = make_model('classification').predict((PIXELS for _ in iter(lambda: next(taken), None)), batch_size=2)
        assert next(results).task == 'classification'
        assert next(taken) == 2
        stream = make_model('classification').predict([PIXELS] * 2, stream=True)
        assert isinstance(stream, types.GeneratorType)

    @pytest.mark.parametrize('options', [dict(batch_size=0), dict(batch_size=True), dict(channel_order='rgb')], ids=str)
    def test_wrong_arguments_are_refused_at_once_also_for_generators(self, make_model, options):
        with pytest.raises(BadInputError, match=next(iter(options))):
            make_model('classification').predict(iter([PIXELS]), **options)


class TestAnswers:
    @pytest.mark.parametrize('task', TASKS)
    def test_what_a_picture_is_batched_with_does_not_matter(self, make_model, task):
        model = make_model(task)
        images = [PIXELS, PIXELS[:, :30], PIXELS[:20], PIXELS[::-1], PIXELS[:, 5:35], PIXELS[:, ::-1]]
        batched = model.predict(images, batch_size=len(images), score_thr=0)
        for result, image in zip(batched, images):
            assert result.size == image.shape[:2]
            assert_same(result, model.predict(image, score_thr=0)[0])

    @pytest.mark.parametrize('task', TASKS)
    def test_threads_get_the_answers_of_one_after_another(self, make_model, task):
        model = make_model(task)
        images = [np.roll(PIXELS, k, axis=1)[: 50 - k] for k in range(12)]
        expected = [model.predict(image, score_thr=0)[0] for image in images]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda image: (r := model.predict(image, score_thr=0)[0], r.draw(0.5)), images))
        for (result, drawn), truth in zip(found, expected):
            assert result.to_dict() == truth.to_dict()
            assert np.array_equal(drawn, truth.draw(0.5))

    def test_mixed_precision_is_close_and_not_the_same(self, make_model):
        exact, rounded = (make_model('segmentation', amp=amp).predict(PIXELS)[0] for amp in (False, True))
        assert (exact.segmentation == rounded.segmentation).mean() > 0.9
        logits = [make_model('classification', amp=amp).predict(PIXELS)[0].probabilities for amp in (False, True)]
        assert np.allclose(*logits, atol=0.05) and not np.array_equal(*logits)
        assert logits[1].dtype == np.float32

    def test_objects_of_a_low_score_are_left_out(self, make_model):
        model = make_model('detection')
        everything = model.predict(PIXELS, score_thr=0)[0]
        threshold = float(np.median(everything.scores))
        few = model.predict(PIXELS, score_thr=threshold)[0]
        assert 0 < len(few) < len(everything) and few.scores.min() >= threshold
        assert len(few.masks) == len(few.boxes) == len(few.class_names) == len(few)
        odd = Result('detection', (4, 4), scores=np.array([np.nan, 0.1]), labels=np.arange(2), boxes=np.zeros((2, 4)))
        assert len(odd.above(0.3)) == 1  # a score that is no number is shown, not hidden

    @pytest.mark.parametrize('task', TASKS)
    def test_results_are_plain_numpy_and_json(self, tmp_path, make_model, task):
        (result,) = make_model(task).predict(PIXELS, score_thr=0)
        height, width = PIXELS.shape[:2]
        assert result.labels.dtype == np.int64 and result.scores.dtype == np.float32
        assert len(result.class_names) == len(result.labels) == len(result)
        if task == 'classification':
            assert result.probabilities.shape == (8,) and result.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert result.scores[0] == result.probabilities.max()
        elif task == 'detection':
            assert result.boxes.shape == (len(result), 4) and result.boxes.dtype == np.float32
            assert result.masks.shape == (len(result), height, width) and result.masks.dtype == bool
        else:
            assert result.segmentation.shape == (height, width) and result.segmentation.dtype == np.uint8
            assert set(result.labels) == set(np.unique(result.segmentation))
        assert json.loads(json.dumps(result.to_dict()))['task'] == task
        assert result.draw().shape == (height, width, 3) and result.draw().dtype == np.uint8
        for name in ('a.png', 'a.jpg'):
            result.save(tmp_path / name)
            assert cv2.imread(str(tmp_path / name)).shape == (height, width, 3)
        with pytest.raises(BadInputError, match='must end in the name of a format'):
            result.save(tmp_path / 'picture')
        assert task in repr(result)

    def test_a_model_exports_itself_and_loads_what_it_wrote(self, tmp_path, make_config, checkpoint):
        config = make_config('classification')
        model = vik_mm.load(config, checkpoint(config))
        path = tmp_path / 'model.ts'
        assert model.export(path, raw_input=True)['max_difference'] < 1e-4
        exported = vik_mm.load(config, path)
        assert_same(exported.predict(PIXELS)[0], model.predict(PIXELS)[0])
        with pytest.raises(BadInputError, match='is exported already'):
            exported.export(tmp_path / 'again.ts')
        with pytest.raises(BadInputError, match='must end in one of'):
            model.export(tmp_path / 'model.bin')


class Recorder(types.ModuleType):
    """Stands for a package: whatever is made of it is a namespace of its arguments."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda **values: types.SimpleNamespace(kind=name, **values)


@pytest.fixture
def found():
    mask = np.zeros((10, 20), bool)
    mask[2:6, 4:8] = True
    boxes = np.array([[4, 2, 8, 6], [18.5, 9.5, 20, 10]], np.float32)
    codes = [encode(mask), encode(~mask)]
    labels, scores = np.array([1, 0]), np.array([0.9, 0.4], np.float32)
    return Result('detection', (10, 20), ('a', 'b'), None, labels, scores, boxes, codes)


class TestOtherPackages:
    @pytest.mark.parametrize('name', ['supervision', 'fiftyone'])
    def test_a_package_that_is_missing_is_named(self, monkeypatch, found, name):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UnavailableError, match=f'pip install {name}'):
            getattr(found, f'to_{name}')()

    def test_fiftyone_gets_shares_of_the_picture(self, monkeypatch, found):
        monkeypatch.setitem(sys.modules, 'fiftyone', Recorder('fiftyone'))
        one, other = found.to_fiftyone().detections
        assert one.label == 'b' and one.confidence == pytest.approx(0.9)
        assert one.bounding_box == pytest.approx([0.2, 0.2, 0.2, 0.4])
        assert one.mask.shape == (4, 4) and one.mask.all()
        left, top, width, height = other.bounding_box
        assert left + width <= 1 and top + height <= 1 and other.mask.shape == (1, 2)
        labels = np.arange(6).reshape(2, 3)
        assert Result('segmentation', (2, 3), segmentation=labels).to_fiftyone().mask is labels
        best = Result('classification', (2, 3), ('a',), None, np.array([0]), np.array([0.5]), probabilities=np.ones(1))
        assert best.to_fiftyone().label == 'a'

    def test_supervision_gets_boxes_masks_and_names(self, monkeypatch, found):
        if 'supervision' not in sys.modules:
            monkeypatch.setitem(sys.modules, 'supervision', Recorder('supervision'))
        made = found.to_supervision()
        assert np.array_equal(made.xyxy, found.boxes) and np.array_equal(made.class_id, found.labels)
        assert np.array_equal(made.mask, found.masks) and made.data['class_name'].tolist() == ['b', 'a']
        probabilities = np.array([0.2, 0.8], np.float32)
        result = Result('classification', (2, 3), ('a', 'b'), None, np.array([1]), probabilities[1:], None, None, None)
        result.probabilities = probabilities
        assert result.to_supervision().confidence.tolist() == probabilities.tolist()
