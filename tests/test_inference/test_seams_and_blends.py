"""Windows of a large picture: where they lie, and how what they show is put together."""

import tracemalloc

import numpy as np
import pytest
import torch

from vik_mm.errors import BadInputError
from vik_mm.inference.blending import LabelBlender
from vik_mm.inference.masks import decode, encode, encode_all, unite
from vik_mm.inference.seams import Pieces, join_pieces
from vik_mm.inference.tiles import Grid, lay_grid

HEIGHT, WIDTH, TILE = 300, 500, 100


def pieces_of(objects, grid):
    """What a perfect detector shows of objects (box, score, label) in each window: what of the box is inside."""
    pieces = Pieces(masks=[])
    for window in grid:
        found = []
        for box, score, label in objects:
            low, high = np.array([window.left, window.top]), np.array([window.right, window.bottom])
            part = np.concatenate([np.clip(box[:2], low, high), np.clip(box[2:], low, high)]).astype(np.float32)
            if (part[2:] - part[:2]).min() >= 4:
                found.append((part, score, label))
        pieces.windows.append(window)
        pieces.boxes.append(np.array([part for part, _, _ in found], np.float32).reshape(-1, 4))
        pieces.scores.append(np.array([score for _, score, _ in found], np.float32))
        pieces.labels.append(np.array([label for _, _, label in found], np.int64))
        for (x1, y1, x2, y2), _, _ in found:
            mask = np.zeros((window.height, window.width), bool)
            mask[int(y1) - window.top : int(y2) - window.top, int(x1) - window.left : int(x2) - window.left] = True
            pieces.masks.append(encode(mask, window.left, window.top, (HEIGHT, WIDTH)))
    return pieces


class TestGrid:
    @pytest.mark.parametrize('height, width', [(100, 100), (101, 240), (997, 305), (40, 501), (181, 199)])
    @pytest.mark.parametrize('overlap', [0, 0.2, 0.5, 0.9])
    def test_windows_cover_each_pixel_with_weights_that_add_up_to_one(self, height, width, overlap):
        grid = lay_grid(height, width, TILE, overlap)
        total = np.zeros((height, width))
        for r, row in enumerate(grid.rows.starts):
            for c, column in enumerate(grid.columns.starts):
                (top, bottom), (left, right) = grid.rows.used(r), grid.columns.used(c)
                assert row <= top and bottom <= row + TILE and column <= left and right <= column + TILE
                total[top:bottom, left:right] += np.outer(grid.rows.weights(r), grid.columns.weights(c))
        assert np.allclose(total, 1, atol=1e-6)

    def test_neighbours_share_at_least_the_overlap(self):
        starts = lay_grid(3000, 4000, 640, 0.2).columns.starts
        assert starts[0] == 0 and starts[-1] == 4000 - 640
        assert max(np.diff(starts)) <= 640 - 128

    def test_a_picture_that_fits_has_one_window(self):
        assert [tuple(window) for window in lay_grid(90, 100, 100, 0.2)] == [(0, 0, 100, 90)]

    @pytest.mark.parametrize('tile, overlap', [(0, 0.2), (6.4, 0.2), (True, 0.2), (64, 1), (64, -0.1)], ids=str)
    def test_windows_that_cannot_be_are_refused(self, tile, overlap):
        with pytest.raises(BadInputError, match='such as'):
            lay_grid(100, 100, tile, overlap)


class TestSeams:
    @pytest.mark.parametrize(
        'box',
        [(70, 20, 96, 60), (75, 75, 110, 110), (30, 30, 260, 140), (10, 10, 490, 290), (60, 40, 103, 60)],
        ids=['across a seam', 'at a corner', 'larger than a window', 'nearly the picture', 'a sliver behind the seam'],
    )
    def test_an_object_across_seams_comes_out_once_with_its_box_and_mask(self, box):
        grid = lay_grid(HEIGHT, WIDTH, TILE, 0.3)
        found = join_pieces(pieces_of([(np.array(box), 0.9, 3)], grid), HEIGHT, WIDTH)
        assert found['labels'].tolist() == [3]
        assert found['boxes'].round().tolist() == [list(box)]
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        assert (decode(found['mask_codes'], (HEIGHT, WIDTH))[0] == mask).all()

    def test_neighbours_of_one_class_at_a_seam_stay_apart(self):
        objects = [(np.array((60 + 22 * k, 40, 80 + 22 * k, 60)), 0.9 - 0.1 * k, 1) for k in range(4)]
        found = join_pieces(pieces_of(objects, lay_grid(HEIGHT, WIDTH, TILE, 0.3)), HEIGHT, WIDTH)
        assert found['boxes'].tolist() == [box.tolist() for box, _, _ in objects]
        assert found['scores'].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])

    def test_boxes_of_one_window_are_never_joined(self):
        grid = lay_grid(HEIGHT, WIDTH, TILE, 0.3)
        pieces = pieces_of([(np.array((10, 10, 50, 50)), 0.9, 1), (np.array((12, 12, 52, 52)), 0.8, 1)], grid)
        assert len(join_pieces(pieces, HEIGHT, WIDTH)['boxes']) == 2

    def test_a_piece_under_another_class_gives_way_to_the_whole(self):
        grid = lay_grid(HEIGHT, WIDTH, TILE, 0.3)
        pieces = pieces_of([(np.array((40, 20, 85, 60)), 0.9, 1)], grid)
        seen = [k for k, boxes in enumerate(pieces.boxes) if len(boxes)]
        cut = min(seen, key=lambda k: pieces.boxes[k][0, 2] - pieces.boxes[k][0, 0])
        assert len(seen) > 1
        pieces.labels[cut][:], pieces.scores[cut][:] = 2, 0.5
        found = join_pieces(pieces, HEIGHT, WIDTH)
        assert found['labels'].tolist() == [1]

    def test_a_crowd_keeps_its_objects(self):
        generator = np.random.default_rng(0)
        corners = generator.uniform(0, [WIDTH - 40, HEIGHT - 40], (40, 2)).round()
        objects = [
            (np.concatenate([corner, corner + generator.integers(10, 40, 2)]), float(score), int(label))
            for corner, score, label in zip(corners, generator.random(40), generator.integers(0, 3, 40))
        ]
        found = join_pieces(pieces_of(objects, lay_grid(HEIGHT, WIDTH, TILE, 0.4)), HEIGHT, WIDTH)
        assert (np.diff(found['scores']) <= 0).all()
        assert 36 <= len(found['boxes']) <= 40  # the drawn boxes overlap each other

    def test_no_objects_in_any_window_are_none(self):
        found = join_pieces(pieces_of([], lay_grid(HEIGHT, WIDTH, TILE, 0.2)), HEIGHT, WIDTH)
        assert found['boxes'].shape == (0, 4) and found['mask_codes'] == []

    def test_memory_does_not_grow_with_the_square_of_the_windows(self):
        windows = list(lay_grid(1500, 1500, 64, 0.2))
        boxes = [np.array([[w.left, w.top, w.right, w.bottom]], np.float32) for w in windows]
        labels = [np.array([k]) for k in range(len(windows))]
        pieces = Pieces(boxes, [np.ones(1, np.float32)] * len(windows), labels, None, windows)
        tracemalloc.start()
        found = join_pieces(pieces, 1500, 1500)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found['boxes']) == len(windows) > 800
        assert peak < 2000 * len(windows)


class TestMasks:
    def test_a_window_is_encoded_as_the_picture_that_holds_it(self):
        coco = pytest.importorskip('pycocotools.mask')
        generator = np.random.default_rng(0)
        places = ((0, 0, 20, 30), (480, 270, 20, 30), (33, 0, 1, 300), (496, 0, 4, 300), (7, 5, 90, 60))
        for left, top, width, height in places:
            windows = generator.random((4, height, width)) > np.reshape([-1, 0.1, 0.6, 1], (4, 1, 1))
            for window, code in zip(windows, encode_all(windows, left, top, (HEIGHT, WIDTH))):
                whole = np.zeros((HEIGHT, WIDTH), np.uint8)
                whole[top : top + height, left : left + width] = window
                assert code == coco.encode(np.asfortranarray(whole)) == encode(window, left, top, (HEIGHT, WIDTH))
                assert (decode([code], (HEIGHT, WIDTH))[0] == whole).all()
        assert encode_all(np.zeros((0, 5, 5), bool)) == []

    def test_masks_unite(self):
        one, other = np.eye(5, dtype=bool), np.eye(5, dtype=bool)[::-1]
        assert (decode([unite([encode(one), encode(other)])], (5, 5))[0] == (one | other)).all()


def blend(grid, maps, threshold=0.5):
    blender = LabelBlender(grid, threshold)
    for window, part in zip(grid, maps):
        blender.add(part(window))
    return blender.labels


class TestBlends:
    @pytest.mark.parametrize('channels', [1, 4])
    @pytest.mark.parametrize('overlap', [0, 0.2, 0.6])
    def test_windows_that_agree_give_the_labels_of_the_whole(self, channels, overlap):
        grid = lay_grid(261, 180, 64, overlap)
        whole = torch.rand(channels, 261, 180, generator=torch.Generator().manual_seed(0))
        parts = [lambda w: whole[:, w.top : w.bottom, w.left : w.right]] * len(grid)
        expected = whole.argmax(0) if channels > 1 else (whole[0] > 0.5)
        assert (blend(grid, parts) == expected.numpy()).all()

    @pytest.mark.parametrize('overlap', [0, 0.2, 0.6])
    def test_windows_that_differ_go_over_smoothly_as_a_sum_over_the_picture_does(self, overlap):
        generator = torch.Generator().manual_seed(0)
        grid = lay_grid(150, 210, 64, overlap)
        parts = [torch.rand(5, 64, 64, generator=generator) for _ in range(len(grid))]
        total = torch.zeros(5, 150, 210)
        places = [(r, c) for r in range(len(grid.rows.starts)) for c in range(len(grid.columns.starts))]
        for (r, c), window, part in zip(places, grid, parts):
            (top, bottom), (left, right) = grid.rows.used(r), grid.columns.used(c)
            weights = torch.from_numpy(np.outer(grid.rows.weights(r), grid.columns.weights(c)))
            inner = part[:, top - window.top : bottom - window.top, left - window.left : right - window.left]
            total[:, top:bottom, left:right] += inner * weights
        margin = total.topk(2, dim=0).values
        is_clear = (margin[0] - margin[1] > 1e-5).numpy()
        labels = blend(grid, [lambda _, part=part: part for part in parts])
        assert (labels == total.argmax(0).numpy())[is_clear].all() and is_clear.mean() > 0.99

    def test_probabilities_are_kept_of_strips_and_never_of_the_picture(self):
        grid = lay_grid(3000, 800, 100, 0.2)
        blender = LabelBlender(Grid(grid.rows, grid.columns))
        largest = 0
        for _ in grid:
            blender.add(torch.rand(3, 100, 100))
            held = [value.numel() for value in vars(blender).values() if isinstance(value, torch.Tensor)]
            largest = max(largest, sum(held))
        assert largest <= 3 * (2 * 20 * 800 + 20 * 100)  # two strips below rows, one to the right; not 3 x 3000 x 800
