"""Recognition data: folders, IDX files and the embedded garments, as streams see them."""

import gzip

import cv2
import numpy as np
import pytest

from mmforget.datasets import FashionMNIST, GarmentSprites, IdxImages, ImageFolder
from mmforget.datasets.stream_sampling import class_index
from mmforget.datasets.streams import StreamDataset

PIPELINE = [
    dict(type='mmdet.LoadImageFromNDArray'),
    dict(type='mmforget.PackRecognition'),
]


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>i4').tobytes()
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def digits(tmp_path):
    """Three images of 4×4 pixels, labels 7, 0 and 7; images gzipped, labels not."""
    pixels = np.arange(48).reshape(3, 4, 4)
    with gzip.open(tmp_path / 't10k-images-idx3-ubyte.gz', 'wb') as file:
        file.write(idx(pixels))
    (tmp_path / 't10k-labels-idx1-ubyte').write_bytes(idx(np.array([7, 0, 7])))
    return tmp_path, pixels


def test_idx_files(digits):
    folder, pixels = digits
    data = IdxImages(str(folder), 'test', pipeline=PIPELINE)
    assert len(data) == 3 and data.metainfo['classes'] == tuple('0123456789')
    item = data[1]
    assert item['inputs'].shape == (3, 4, 4)
    assert np.array_equal(item['inputs'][2].numpy(), pixels[1])
    assert item['data_samples'].gt_label.tolist() == [0]
    assert item['data_samples'].img_shape == (4, 4)


def test_streams_draw_by_class(digits):
    data = IdxImages(str(digits[0]), 'test', pipeline=PIPELINE)
    index = class_index(data)
    assert index.images_of['7'].tolist() == [0, 2] and index.images_of['1'].tolist() == []
    stream = StreamDataset(data, index.candidates(['7']), ['7'])
    assert [stream[i, 0]['data_samples'].gt_label.item() for i in range(2)] == [7, 7]


@pytest.mark.parametrize(
    ('damage', 'error', 'message'),
    [
        (lambda f: (f / 't10k-labels-idx1-ubyte').unlink(), FileNotFoundError, 'labels-idx1'),
        (
            lambda f: (f / 't10k-labels-idx1-ubyte').write_bytes(b'<html>'),
            ValueError,
            'no IDX file',
        ),
        (
            lambda f: (f / 't10k-labels-idx1-ubyte').write_bytes(idx(np.array([7, 0, 7]))[:-1]),
            ValueError,
            'cut off',
        ),
    ],
)
def test_damaged_idx_files(digits, damage, error, message):
    damage(digits[0])
    with pytest.raises(error, match=message):
        IdxImages(str(digits[0]), 'test', pipeline=PIPELINE)
    with pytest.raises(ValueError, match="'val'"):
        FashionMNIST(split='val')


def test_folders(tmp_path):
    for name, number in (('cat', 2), ('dog', 1)):
        (tmp_path / name / 'more').mkdir(parents=True)
        for index in range(number):
            cv2.imwrite(str(tmp_path / name / 'more' / f'{index}.png'), np.zeros((3, 5, 3)))
    (tmp_path / 'cat' / 'notes.txt').touch()
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmforget.PackRecognition')]
    data = ImageFolder(str(tmp_path), pipeline=pipeline)
    assert data.metainfo['classes'] == ('cat', 'dog')
    assert [data.get_data_info(i)['gt_label'] for i in range(len(data))] == [0, 0, 1]
    assert data[2]['inputs'].shape == (3, 3, 5)
    turned = ImageFolder(str(tmp_path), classes=['dog', 'cat'], pipeline=pipeline)
    assert [turned.get_data_info(i)['gt_label'] for i in range(3)] == [0, 1, 1]
    with pytest.raises(FileNotFoundError, match='no folder for cow.*cat, dog'):
        ImageFolder(str(tmp_path), classes=['cow'])
    with pytest.raises(FileNotFoundError, match='holds no folders'):
        ImageFolder(str(tmp_path / 'cat' / 'more'))
    (tmp_path / 'eel').mkdir()
    with pytest.raises(FileNotFoundError, match='eel holds no image'):
        ImageFolder(str(tmp_path))


def test_embedded_garments():
    data = GarmentSprites('val', pipeline=PIPELINE)
    assert len(data) == 500
    assert [len(images) for images in class_index(data).images_of.values()] == [50] * 10
    assert data[499]['inputs'].shape == (3, 28, 28)
    with pytest.raises(ValueError, match="'dev'"):
        GarmentSprites('dev')
