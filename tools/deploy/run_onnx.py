"""Run an exported model with ONNX Runtime, NumPy and Pillow only:  python run_onnx.py model.onnx image.jpg"""

import ast
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
names = ast.literal_eval(session.get_modelmeta().custom_metadata_map.get('names', '{}'))
image = np.asarray(Image.open(sys.argv[2]).convert('RGB'))[None]
found = dict(zip((out.name for out in session.get_outputs()), session.run(None, {'image': image})))
if 'probabilities' in found:
    for label in np.argsort(-found['probabilities'][0])[:5]:
        print(names.get(label, label), round(float(found['probabilities'][0, label]), 6))
elif 'label_map' in found:
    for label, pixels in zip(*np.unique(found['label_map'][0], return_counts=True)):
        print(names.get(label, label), int(pixels))
else:
    for k in range(found['counts'][0]):
        pixels = [int(found['masks'][k].sum())] if 'masks' in found else []
        label = found['labels'][0, k]
        print(names.get(label, label), round(float(found['scores'][0, k]), 6), *found['boxes'][0, k].round(2), *pixels)
