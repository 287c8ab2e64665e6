"""Images in folders, one for each class."""

from pathlib import Path
from typing import Any

from mmforget.datasets.recognition import RecognitionDataset
from mmforget.registry import DATASETS

_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.webp'})


@DATASETS.register_module()
class ImageFolder(RecognitionDataset):
    """``<data_root>/<class>/**/<image>``, as ImageNet and face data sets come.

    Args:
        data_root: The folder of folders.
        classes: Names of the classes in label order; by default all folders, sorted.
        **kwargs: Those of MMEngine's BaseDataset.

    Raises:
        FileNotFoundError: There is no such folder, or a class has none or holds no image.
    """

    def __init__(self, data_root: str, classes: list[str] | None = None, **kwargs: Any) -> None:
        folder = Path(data_root)
        found = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        if not found:
            raise FileNotFoundError(
                f'data_root={data_root!r} holds no folders; expected one for each class, with its '
                'images inside.'
            )
        missing = [name for name in classes or () if name not in found]
        if missing:
            raise FileNotFoundError(
                f'data_root={data_root!r} has no folder for {", ".join(missing)}; it has '
                f'{", ".join(found[:10])}{" and more" if len(found) > 10 else ""}.'
            )
        self._folder = folder
        super().__init__(metainfo={'classes': tuple(classes or found)}, **kwargs)

    def load_images(self) -> list[dict[str, Any]]:
        """Paths in order of class and name."""
        images = []
        for label, name in enumerate(self.metainfo['classes']):
            files = sorted((self._folder / name).rglob('*'))
            paths = [str(path) for path in files if path.suffix.lower() in _SUFFIXES]
            if not paths:
                raise FileNotFoundError(
                    f'{self._folder / name} holds no image; expected files with one of '
                    f'{", ".join(sorted(_SUFFIXES))}.'
                )
            images += [{'img_path': path, 'gt_label': label} for path in paths]
        return images
