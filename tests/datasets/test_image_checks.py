"""Missing images are found by a look at the files, of the images that are needed."""

import os

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset

from mmforget.datasets.image_checks import check_stream_images, check_validation_images


def test_a_missing_image_of_a_stream(make_dataset):
    dataset = make_dataset()
    check_stream_images(dataset, range(12))
    for image in (3, 7):
        os.remove(dataset.get_data_info(image)['img_path'])
    check_stream_images(dataset, [0, 1, 2, 4])  # Others are not asked for.
    message = (
        "0004.png' does not exist; it is the first of 2 missing images among the 12 that "
        'train_dataloader needs.*data_root and data_prefix.*fetch the images'
    )
    with pytest.raises(FileNotFoundError, match=message):
        check_stream_images(RepeatDataset(dataset, 2), range(12))


def test_images_of_a_second_data_set(make_dataset):
    """Indices count through the parts, as those of the streams do."""
    first, second = make_dataset(), make_dataset(folder='b', images=[('owl',)], start=50)
    both = ConcatDataset([first, second])
    os.remove(second.get_data_info(0)['img_path'])
    check_stream_images(both, range(12))
    with pytest.raises(FileNotFoundError, match='0050.png.*first of 1 missing'):
        check_stream_images(both, range(13))


def test_validation_images(make_dataset):
    dataset = make_dataset(test_mode=True)
    check_validation_images(dataset)
    os.remove(dataset.get_data_info(5)['img_path'])
    with pytest.raises(FileNotFoundError, match='0006.png.*the 12 that val_dataloader needs'):
        check_validation_images(dataset)


def test_images_that_are_not_read_from_local_files_are_left_alone(make_dataset):
    dataset = make_dataset()
    os.remove(dataset.get_data_info(5)['img_path'])
    dataset.pipeline.transforms[0].backend_args = {'backend': 'petrel'}
    check_stream_images(dataset, range(12))
    check_validation_images(dataset)
    dataset.pipeline.transforms[0].backend_args = {'backend': 'local'}
    with pytest.raises(FileNotFoundError):
        check_validation_images(dataset)
    del dataset.pipeline.transforms[0]
    check_validation_images(dataset)
