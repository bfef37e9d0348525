"""Prediction on folders of all kinds: no original is touched, no result is lost, no picture ends the run."""

import fcntl
import json
import os
import resource
import signal
import socket
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

import vik_mm.inference
from vik_mm.compat.sync_bn import without_sync_bn
from vik_mm.errors import BadInputError
from vik_mm.inference import Predictor
from vik_mm.input_images import find_images, is_regular_file, readable
from vik_mm.prediction_files import PredictionFiles, describe_error

TASKS = ('classification', 'detection', 'segmentation')
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 91, 3), dtype=np.uint8)  # wider than high
NOT_UTF8 = os.fsdecode(b'caf\xe9.png')


@pytest.fixture(autouse=True)
def scope():
    """Tools set the default scope of the whole process."""
    yield
    init_default_scope('mmpretrain')


@pytest.fixture
def checkpoint(tmp_path):
    """Untrained weights of a config's model."""

    def make(config):
        cfg = Config.fromfile(config)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = without_sync_bn(cfg.model)
        if 'data_preprocessor' in cfg:
            model.data_preprocessor = cfg.data_preprocessor
        path = tmp_path / 'model.pth'
        torch.save(dict(state_dict=MODELS.build(model).state_dict()), path)
        return path

    return make


@pytest.fixture
def infer(tmp_path, make_config, checkpoint, call_tool):
    """Run tools/infer.py with the demo's model; return its exit value, what it wrote and the records by file name."""
    made = {}

    def run(*arguments, task='classification', out=tmp_path / 'out'):
        if task not in made:
            made[task] = config = make_config(task)
            checkpoint(config)
        code, text = call_tool('infer.py', made[task], tmp_path / 'model.pth', *arguments, '--out', out)
        file = Path(out, 'results.json')
        records = json.loads(file.read_text()) if file.is_file() else []
        return code, text, {record['image'].rsplit('/', 1)[-1]: record for record in records}

    return run


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    return folder


def write(path, pixels=PIXELS, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path, **options)
    return path


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def outputs(paths, out='out'):
    return {os.path.basename(image.path): image.output for image in find_images(paths, out).images}


@contextmanager
def at_image(monkeypatch, number, action):
    """Do something when a predictor is given its n-th image."""
    count = 0

    class Watched(Predictor):
        def __call__(self, image):
            nonlocal count
            count += 1
            if count == number:
                action()
            return super().__call__(image)

    with monkeypatch.context() as patch:
        patch.setattr(vik_mm.inference, 'Predictor', Watched)
        yield


class TestOriginals:
    @pytest.mark.parametrize('out', ['images', '.', 'images/deeper', 'link'])
    def test_an_output_folder_that_holds_an_image_is_refused(self, tmp_path, images, infer, out):
        write(images / 'a.jpg'), write(images / 'a.png'), write(images / 'deeper/b.png')
        (tmp_path / 'link').symlink_to(images)
        before = contents(images)
        code, _, _ = infer(images, images / 'deeper', out=tmp_path / out)
        assert 'lies in the output folder' in code
        assert contents(images) == before

    def test_outputs_below_the_images_are_never_inputs(self, images, infer):
        write(images / 'a.jpg'), write(images / 'a.png')
        before = contents(images)
        for out in (images / 'first', images / 'first', images / 'second'):
            code, text, records = infer(images, out=out)
            assert code == 0, text
            assert set(records) == {'a.jpg', 'a.png'}
        assert f'folder {images / "first"} was left out: it holds predictions' in text
        assert {path: content for path, content in contents(images).items() if path in before} == before

    def test_an_output_behind_a_link_overwrites_no_image(self, tmp_path, images):
        originals = [write(images / 'x/a.png'), write(images / 'x/a.png.picture.png')]
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out/x').symlink_to(images / 'x')
        with pytest.raises(BadInputError, match=r'a\.png\.picture\.png would overwrite an image of this run'):
            find_images([images], tmp_path / 'out')
        assert all(path.is_file() for path in originals)

    def test_a_picture_replaces_a_link_and_not_the_file_behind_it(self, tmp_path, images, infer):
        original = write(images / 'a.png')
        before = original.read_bytes()
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out/a.png.picture.png').symlink_to(original)
        code, text, _ = infer(images)
        assert code == 0, text
        assert original.read_bytes() == before


class TestNames:
    def test_files_of_one_stem_have_outputs_of_their_own(self, tmp_path, images, infer):
        shapes = {'a.png': (40, 50), 'a.jpg': (41, 50), 'a.bmp': (42, 50), 'a.png.jpg': (43, 50)}
        for name, shape in shapes.items():
            write(images / name, PIXELS[: shape[0], : shape[1]])
        code, text, records = infer(images, task='segmentation')
        assert code == 0, text
        for name, shape in shapes.items():
            for key in ('picture', 'label_map'):
                written = cv2.imread(str(tmp_path / 'out' / records[name][key]), cv2.IMREAD_UNCHANGED)
                assert written.shape[:2] == shape
        assert records['a.jpg']['picture'] == 'a.jpg.picture.png'
        assert records['a.jpg']['label_map'] == 'a.jpg.labels.png'

    def test_names_do_not_depend_on_the_other_files(self, images):
        names = ['a.png', 'a.jpg', 'deeper/a.png', 'x' * 246 + '.png', NOT_UTF8, 'caf%E9.png', 'ä.png', 'new\nline.png']
        for name in names:
            write(images / name)
        together = {image.path: image.output for image in find_images([images], 'out').images}
        assert len(set(together.values())) == len(names)
        for path, output in together.items():
            output.encode()
            assert max(map(len, os.fsencode(output).split(b'/'))) <= 200
            for other in set(together) - {path}:
                os.rename(other, other + '.away')
            assert [image.output for image in find_images([images], 'out').images] == [output]
            for other in set(together) - {path}:
                os.rename(other + '.away', other)

    def test_folders_that_hold_the_same_names_are_told_apart(self, images):
        paths = [write(images / folder / 'x/a.png') for folder in ('train', 'val')]
        found = find_images([images / 'train', images / 'val'], 'out').images
        assert [image.output for image in found] == ['train/x/a.png', 'val/x/a.png']
        assert [image.output for image in find_images(paths, 'out').images] == ['train/x/a.png', 'val/x/a.png']
        assert [image.output for image in find_images(paths[:1], 'out').images] == ['a.png']

    def test_a_file_that_is_given_twice_is_taken_once(self, monkeypatch, images):
        write(images / 'a.png')
        monkeypatch.chdir(images)
        found = find_images([images, images / 'a.png', 'a.png', '../images'], '/nowhere/out').images
        assert [image.path for image in found] == [str(images / 'a.png')]

    def test_names_that_differ_in_case_or_form_only_are_told_apart_everywhere(self, images):
        names = ['a.png', 'A.png', 'b.png', 'e\u0301.png', '\xe9.png']
        for name in names:
            write(images / name)
        if len(list(images.iterdir())) < len(names):
            pytest.skip('this file system takes them for one')
        found = outputs([images])
        assert len({output.casefold() for output in found.values()}) == len(names)
        assert found['b.png'] == 'b.png'
        assert found['a.png'].startswith('a.png~') and found['A.png'].startswith('A.png~')

    def test_a_name_that_looks_hashed_does_not_take_anothers(self, images):
        long = write(images / ('x' * 246 + '.png'))
        (hashed,) = outputs([long]).values()
        crafted = write(images / 'a.png').rename(images / hashed)
        assert len(set(outputs([long, crafted]).values())) == 2

    def test_a_name_that_is_no_utf8_is_written_with_its_bytes(self, tmp_path, images, infer):
        write(images / NOT_UTF8)
        code, text, _ = infer(images)
        assert code == 0, text
        (record,) = json.loads((tmp_path / 'out/results.json').read_bytes().decode())
        assert record['image'] == f'{images}/caf\\xe9.png'
        assert unquote_to_bytes(record['image_percent_encoded']) == os.fsencode(images / NOT_UTF8)
        assert (tmp_path / 'out' / record['picture']).is_file()
        assert readable('a\n\x1b[31m' + NOT_UTF8) == 'a\\n\\x1b[31mcaf\\xe9.png'


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
        predictor = Predictor(Config.fromfile(config), checkpoint(config))
        for size in ((30, 1200), (1200, 30), (1, 1)):
            _, sample = predictor(write(images / 'a.png', np.full((*size, 3), 77, dtype=np.uint8)))
            assert sample.pred_sem_seg.data.shape[1:] == size

    def test_a_continued_picture_has_the_labels_of_its_own_part(self, images, make_config, checkpoint):
        config = make_config('segmentation')
        weights = checkpoint(config)
        cfg = Config.fromfile(config)
        del cfg.test_dataloader.dataset.pipeline[1]  # the resizing
        predictor = Predictor(cfg, weights)
        _, sample = predictor(write(images / 'a.png', PIXELS[:20]))
        padded = np.concatenate([PIXELS[:20], PIXELS[19:20].repeat(12, axis=0)])
        _, whole = predictor(write(images / 'b.png', padded))
        assert sample.pred_sem_seg.data.shape == (1, 20, 91)
        assert torch.equal(sample.pred_sem_seg.data, whole.pred_sem_seg.data[:, :20])

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
        predictor = Predictor(cfg, weights)
        exif = Image.Exif()
        exif[0x112] = 6  # to be turned by 90 degrees
        _, sample = predictor(write(images / 'a.jpg', exif=exif))
        predictor.draw(images / 'a.jpg', sample, tmp_path / 'picture.png')
        predictor.save_label_map(sample, tmp_path / 'labels.png')
        size = (91, 50) if color_type == 'color' else (50, 91)
        for name in ('picture.png', 'labels.png'):
            assert cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED).shape[:2] == size

    def test_a_bug_that_hits_every_image_is_shown_in_full(self, monkeypatch, images, infer):
        write(images / 'a.png'), write(images / 'b.png')

        def draw(*_):
            raise RuntimeError('a bug of ours')

        with monkeypatch.context() as patch:
            patch.setattr(Predictor, 'draw', draw)
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


class TestInputs:
    def test_only_regular_files_are_read(self, tmp_path, images, infer):
        write(images / 'a.png'), write(images / 'folder.png/b.png')
        (images / 'link.png').symlink_to('a.png')
        os.mkfifo(images / 'pipe.png')
        (images / 'gone.png').symlink_to('nothing')
        (images / 'circle.png').symlink_to('circle.png')
        (images / 'up').symlink_to(images)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(images / 'socket.png'))
            code, text, records = infer(images)
        assert code == 0, text
        assert set(records) == {'a.png', 'b.png', 'link.png'}
        assert 'note: not regular files, left out: 4 (' in text
        assert f'note: links to folders, left out: 1 ({images / "up"})' in text
        code, _, _ = infer(images / 'pipe.png')
        assert code == f'error: {images / "pipe.png"} is a pipe; name regular files or folders'
        code, _, _ = infer(images / 'gone.png')
        assert code.endswith('does not exist: it is a link to a file that does not exist')

    def test_a_file_that_has_become_a_pipe_or_vanished_is_an_error_of_its_own(self, images, infer, monkeypatch):
        names = ('a.png', 'b.png', 'c.png', 'd.png')
        for name in names:
            write(images / name)

        def change():
            (images / 'b.png').unlink()
            (images / 'c.png').unlink()
            os.mkfifo(images / 'c.png')

        with at_image(monkeypatch, 2, change):
            code, text, records = infer(images)
        assert code == 1, text
        assert 'No such file' in records['b.png']['error']
        assert 'it is no regular file' in records['c.png']['error']
        assert 'score' in records['a.png'] and 'score' in records['d.png']
        assert not is_regular_file(images / 'c.png')

    def test_what_is_left_out_by_its_ending_is_counted(self, images):
        write(images / 'a.PNG'), write(images / 'a.gif'), write(images / 'b.gif')
        (images / 'notes').write_text('')
        found = find_images([images], 'out')
        assert [Path(image.path).name for image in found.images] == ['a.PNG']
        assert found.notes == ['files of other endings, left out: 3 (2 .gif, 1 without one)']
        (images / 'a.PNG').unlink()
        with pytest.raises(FileNotFoundError, match=r'holds no image \(.*; files of other endings, left out: 3'):
            find_images([images], 'out')

    def test_a_folder_that_cannot_be_read_is_told_and_the_rest_is_done(self, images, infer, monkeypatch):
        write(images / 'a.png'), write(images / 'closed/b.png')
        scandir = os.scandir

        def refuse(path):
            if str(path).endswith('closed'):
                raise PermissionError(13, 'Permission denied', path)
            return scandir(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, 'scandir', refuse)
            code, text, records = infer(images)
        assert code == 1
        assert f'error: folder {images / "closed"} cannot be read (Permission denied)' in text
        assert set(records) == {'a.png'}


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
        (tmp_path / 'file').write_bytes(b'')
        code, _ = call_tool('infer.py', 'no.py', 'no.pth', images, '--out', tmp_path / 'file/out')
        assert code == f'error: {tmp_path / "file"} is no folder; choose another output folder'
        (tmp_path / 'out/results.jsonl').mkdir(parents=True)
        with pytest.raises(BadInputError, match='no regular file'):
            PredictionFiles(tmp_path / 'out')
