"""Prediction on pictures of all kinds: no result is lost, no picture ends the run."""

import fcntl
import json
import os
import resource
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pictures import PIXELS, at_image, write
from PIL import Image

from vik_mm.errors import BadInputError
from vik_mm.inference import Model, Result
from vik_mm.inference.prediction_files import PredictionFiles, describe_error

TASKS = ('classification', 'detection', 'segmentation')


class TestGuard:
    @pytest.mark.parametrize('task', TASKS)
    def test_no_picture_ends_the_run(self, tmp_path, images, infer, task):
        sizes = {'dot.png': (1, 1), 'flat.png': (30, 1200), 'high.png': (1200, 30), 'x' * 246 + '.png': (20, 33)}
        for name, size in sizes.items():
            write(images / name, np.full((*size, 3), 77, dtype=np.uint8))
        write(images / 'line.png', np.zeros((1, 3000, 3), np.uint8))
        (images / 'broken.png').write_bytes(b'no image')
        (images / 'empty.jpg').write_bytes(b'')
        code, text, records = infer(images, '--score-thr', 0.0, task=task)
        assert code == 1, text
        failed = {name for name, record in records.items() if 'error' in record}
        # 64 pixels of width would leave no row of it.
        assert failed == {'broken.png', 'empty.jpg'} | ({'line.png'} if task != 'classification' else set())
        assert 'broken.png cannot be read as an image' in records['broken.png']['error']
        if task != 'classification':
            assert '3000x1 pixels) cannot be prepared as the config says' in records['line.png']['error']
        for name in failed:
            assert f'error: {records[name]["error"]}' in text
        for name, size in sizes.items():
            assert cv2.imread(str(tmp_path / 'out' / records[name]['picture'])).shape[:2] == size
            if task == 'segmentation':
                labels = cv2.imread(str(tmp_path / 'out' / records[name]['label_map']), cv2.IMREAD_UNCHANGED)
                assert labels.shape == size
                assert sum(records[name]['shares'].values()) == pytest.approx(1, abs=1e-4)
            for found in records[name].get('objects', ()):
                assert found['mask']['size'] == list(size)
                x1, y1, x2, y2 = found['box']
                assert 0 <= x1 <= x2 <= size[1] and 0 <= y1 <= y2 <= size[0]
        lines = (tmp_path / 'out/results.jsonl').read_text().splitlines()
        assert [json.loads(line) for line in lines] == list(records.values())

    def test_narrow_pictures_are_predicted_on_in_windows_too(self, images, make_config, checkpoint):
        config = make_config(
            'segmentation', "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(42, 42)))\n"
        )
        model = Model(Config.fromfile(config), checkpoint(config))
        for size in ((30, 1200), (1200, 30), (1, 1)):
            (result,) = model.predict(write(images / 'a.png', np.full((*size, 3), 77, dtype=np.uint8)))
            assert result.segmentation.shape == size

    def test_a_continued_picture_has_the_labels_of_its_own_part(self, images, make_config, checkpoint):
        config = make_config('segmentation')
        weights = checkpoint(config)
        cfg = Config.fromfile(config)
        del cfg.test_dataloader.dataset.pipeline[1]  # the resizing
        model = Model(cfg, weights)
        (result,) = model.predict(write(images / 'a.png', PIXELS[:20]))
        padded = np.concatenate([PIXELS[:20], PIXELS[19:20].repeat(12, axis=0)])
        (whole,) = model.predict(write(images / 'b.png', padded))
        assert result.segmentation.shape == (20, 91)
        assert (result.segmentation == whole.segmentation[:20]).all()

    def test_pictures_of_all_kinds_are_predicted_on(self, images, infer):
        grey, colour = PIXELS[..., 0], PIXELS
        write(images / 'grey.png', grey), write(images / 'one_bit.png', grey > 128)
        write(images / 'rgba.png', np.dstack([colour, grey])), write(images / 'la.png', np.dstack([grey, grey]))
        write(images / 'cmyk.jpg', np.dstack([colour, grey]), 'CMYK')
        Image.fromarray(colour).quantize(8).save(images / 'palette.png')
        cv2.imwrite(str(images / 'grey16.png'), grey.astype(np.uint16) * 257)
        cv2.imwrite(str(images / 'rgb16.tif'), colour.astype(np.uint16) * 257)
        write(images / 'a.webp'), write(images / 'a.pgm', grey)
        code, text, records = infer(images)
        assert code == 0, text
        assert len(records) == 10

    @pytest.mark.parametrize('color_type', ['color', 'color_ignore_orientation', 'unchanged'])
    def test_pictures_and_label_maps_are_turned_as_the_model_saw_them(
        self, tmp_path, images, make_config, checkpoint, color_type
    ):
        config = make_config('segmentation')
        weights = checkpoint(config)
        cfg = Config.fromfile(config)
        cfg.test_dataloader.dataset.pipeline[0].update(color_type=color_type)
        model = Model(cfg, weights)
        exif = Image.Exif()
        exif[0x112] = 6  # to be turned by 90 degrees
        (result,) = model.predict(write(images / 'a.jpg', exif=exif))
        result.save(tmp_path / 'picture.png')
        result.save_label_map(tmp_path / 'labels.png')
        size = (91, 50) if color_type == 'color' else (50, 91)
        for name in ('picture.png', 'labels.png'):
            assert cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED).shape[:2] == size

    def test_a_bug_that_hits_every_image_is_shown_in_full(self, monkeypatch, images, infer):
        write(images / 'a.png'), write(images / 'b.png')

        def save(*_):
            raise RuntimeError('a bug of ours')

        with monkeypatch.context() as patch:
            patch.setattr(Result, 'save', save)
            code, text, records = infer(images)
        assert code == 1
        assert [record['error'] for record in records.values()] == ['RuntimeError: a bug of ours'] * 2
        assert text.count('Traceback (most recent call last)') == 1

    def test_a_prediction_that_is_no_number_is_an_error_and_no_broken_json(self, tmp_path):
        with PredictionFiles(tmp_path / 'out') as files, pytest.raises(BadInputError, match='look at the weights'):
            files.add('a.png', dict(score=float('nan')))
        assert json.loads((tmp_path / 'out/results.json').read_text()) == []

    def test_lack_of_memory_is_told_with_what_helps(self):
        assert 'make it smaller' in describe_error(MemoryError())
        assert 'make it smaller' in describe_error(torch.OutOfMemoryError('CUDA out of memory.'))


class TestResults:
    def test_results_are_written_as_they_come(self, tmp_path, images, infer, monkeypatch):
        for name in 'abc':
            write(images / f'{name}.png')
        (images / 'a.png').write_bytes(b'')
        seen = []
        with at_image(monkeypatch, 3, lambda: seen.extend((tmp_path / 'out/results.jsonl').read_text().splitlines())):
            _, _, records = infer(images)
        assert [json.loads(line) for line in seen] == [records['a.png'], records['b.png']]

    @pytest.mark.parametrize('name, code', [('SIGTERM', 143), ('SIGINT', 130), ('SIGHUP', 129)])
    def test_a_signal_ends_the_run_between_two_images(self, images, infer, monkeypatch, name, code):
        for letter in 'abc':
            write(images / f'{letter}.png')
        number = getattr(signal, name)
        before = signal.getsignal(number)
        with at_image(monkeypatch, 2, lambda: os.kill(os.getpid(), number)):
            ended, text, records = infer(images)
        assert ended == code
        assert set(records) == {'a.png', 'b.png'}
        assert '2 of 3 images' in text
        assert signal.getsignal(number) is before

    def test_a_second_signal_stops_at_once_and_keeps_what_is_done(self, images, infer, monkeypatch):
        for letter in 'abc':
            write(images / f'{letter}.png')

        def strike_twice():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

        with at_image(monkeypatch, 2, strike_twice):
            code, _, records = infer(images)
        assert code == 143
        assert set(records) == {'a.png'}

    def test_a_killed_run_leaves_whole_lines_and_the_next_starts_anew(self, tmp_path):
        out = tmp_path / 'out'
        with PredictionFiles(out) as files:
            files.add('of_before.png', {})
        child = os.fork()
        if child == 0:
            files = PredictionFiles(out)
            files.add('a.png', dict(label=1))
            files.add_error('b.png', BadInputError('bad'))
            (out / '.a.png.x.unfinished').write_bytes(b'half')
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        lines = (out / 'results.jsonl').read_text().splitlines()
        assert [json.loads(line)['image'] for line in lines] == ['a.png', 'b.png']
        # The last run that came to its end.
        assert [record['image'] for record in json.loads((out / 'results.json').read_text())] == ['of_before.png']
        with PredictionFiles(out) as files:
            files.add('c.png', {})
        assert {path.name for path in out.iterdir()} == {'results.json', 'results.jsonl'}
        assert [record['image'] for record in json.loads((out / 'results.json').read_text())] == ['c.png']

    @pytest.mark.parametrize('room', [100, 700], ids=['for no line', 'for lines and no picture'])
    def test_a_full_disk_ends_the_run_with_what_is_done(self, tmp_path, images, infer, monkeypatch, room):
        write(images / 'a.png', PIXELS[:1, :1]), write(images / 'b.png'), write(images / 'c.png')
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            with at_image(monkeypatch, 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))):
                code, text, records = infer(images)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert code.startswith(f'error: the output folder {tmp_path / "out"} cannot be written to any more (File too')
        lines = (tmp_path / 'out/results.jsonl').read_text().splitlines()
        names = [Path(json.loads(line)['image']).name for line in lines]
        assert names == (['a.png'] if room == 700 else [])
        assert list(records) == names
        assert not list((tmp_path / 'out').glob('.*'))

    def test_two_runs_do_not_share_an_output_folder(self, tmp_path):
        with PredictionFiles(tmp_path) as files:
            files.add('a.png', {})
            with pytest.raises(BadInputError, match='another run is writing'):
                PredictionFiles(tmp_path)
        assert len(json.loads((tmp_path / 'results.json').read_text())) == 1

    def test_a_file_system_without_locks_takes_results(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(95, 'Operation not supported')

        monkeypatch.setattr(fcntl, 'flock', refuse)
        with PredictionFiles(tmp_path) as files:
            files.add('a.png', {})
        assert (tmp_path / 'results.json').is_file()

    def test_an_output_folder_that_cannot_be_is_told_before_the_model_is_built(self, tmp_path, images, call_tool):
        write(images / 'a.png')
        for name in ('file', 'no.py', 'no.pth'):
            (tmp_path / name).write_bytes(b'')
        code, _ = call_tool('infer.py', tmp_path / 'no.py', tmp_path / 'no.pth', images, '--out', tmp_path / 'file/out')
        assert code == f'error: {tmp_path / "file"} is no folder; choose another output folder'
        (tmp_path / 'out/results.jsonl').mkdir(parents=True)
        with pytest.raises(BadInputError, match='no regular file'):
            PredictionFiles(tmp_path / 'out')
