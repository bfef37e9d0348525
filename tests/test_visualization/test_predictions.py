import cv2
import numpy as np
import pytest

from vik_mm.visualization import draw_class_predictions


def test_wrong_predictions_are_drawn_in_red_with_the_truth(tmp_path):
    images = [np.full((8, 8, 3), 255, np.uint8)] * 2

    def red_pixels(prediction):
        path = draw_class_predictions(tmp_path / 'p.png', images, ['cat', 'cat'], ['cat', prediction], [0.9, 0.8])
        blue, green, red = np.moveaxis(cv2.imread(str(path)).astype(int), 2, 0)
        return ((red > 180) & (green < 100) & (blue < 100)).sum()

    assert red_pixels('cat') == 0
    assert red_pixels('dog') > 20


@pytest.mark.parametrize('count', [0, 1])
def test_unequal_or_no_input_is_named(tmp_path, count):
    with pytest.raises(ValueError, match='equally many'):
        draw_class_predictions(tmp_path / 'p.png', [], ['cat'] * count, [], [])
    assert not (tmp_path / 'p.png').exists()
