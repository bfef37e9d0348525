"""Prediction on folders of all kinds: no original is touched, every file is found once and has a name of its own."""

import json
import os
import socket
from pathlib import Path
from urllib.parse import unquote_to_bytes

import cv2
import pytest
from pictures import PIXELS, at_image, write

from vik_mm.errors import BadInputError
from vik_mm.inference.input_images import find_images, is_regular_file, readable

NOT_UTF8 = os.fsdecode(b'caf\xe9.png')


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def outputs(paths, out='out'):
    return {os.path.basename(image.path): image.output for image in find_images(paths, out).images}


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
        assert records['b.png']['error'] == f'image {images / "b.png"} does not exist'
        assert records['c.png']['error'] == f'{images / "c.png"} is a pipe; name regular files or folders'
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
