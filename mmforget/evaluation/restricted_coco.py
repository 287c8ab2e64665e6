"""COCO AP per class, on all images and restricted to the images that show a class set.

pycocotools matches detections to objects per (image, class). So one matching serves every
protocol: a restriction only chooses which of its entries are accumulated.
"""

import contextlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# COCO AP counts at most 100 detections per image and class (spec A.2).
MAX_DETS = 100


@dataclass(frozen=True)
class CategoryAP:
    """AP by category id, in 0..1; ``None`` for a category without ground truth.

    Attributes:
        ap: Mean over the IoU thresholds of the evaluation.
        ap50: At IoU 0.5; ``None`` throughout if that threshold was not evaluated.
    """

    ap: dict[int, float | None]
    ap50: dict[int, float | None]


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Catches what pycocotools prints, and yields it."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield printed


def box_results(predictions: Iterable[Mapping[str, Any]], cat_ids: Sequence[int]) -> list[dict]:
    """COCO result dicts from what CocoMetric keeps of each image.

    The numbers are those that CocoMetric writes to a file and reads again, without the file.

    Args:
        predictions: Per image ``img_id``, ``bboxes`` (N, 4) as x1, y1, x2, y2 in pixels,
            ``scores`` (N,) and ``labels`` (N,).
        cat_ids: Category id of each label.
    """
    results = []
    for image in predictions:
        boxes = np.array(image['bboxes'], dtype=float)
        boxes[:, 2:] -= boxes[:, :2]
        detections = zip(
            boxes.tolist(), image['scores'].tolist(), image['labels'].tolist(), strict=True
        )
        results += [
            {
                'image_id': image['img_id'],
                'bbox': box,
                'score': score,
                'category_id': cat_ids[label],
            }
            for box, score, label in detections
        ]
    return results


def mask_results(predictions: Iterable[Mapping[str, Any]], cat_ids: Sequence[int]) -> list[dict]:
    """The same for masks.

    Args:
        predictions: Per image ``img_id``, ``masks`` (N run-length codes), ``labels`` (N,) and
            ``mask_scores`` (N,), or ``scores`` where a mask has none of its own.
        cat_ids: Category id of each label.
    """
    results = []
    for image in predictions:
        scores = image.get('mask_scores', image['scores']).tolist()
        detections = zip(image['masks'], scores, image['labels'].tolist(), strict=True)
        results += [
            {
                'image_id': image['img_id'],
                'segmentation': _as_text(code),
                'score': score,
                'category_id': cat_ids[label],
            }
            for code, score, label in detections
        ]
    return results


def _as_text(code: Mapping[str, Any]) -> dict[str, Any]:
    """A run-length code as a JSON file holds it."""
    counts = code['counts']
    return {**code, 'counts': counts.decode() if isinstance(counts, bytes) else counts}


def detection_index(coco_gt: COCO, predictions: list[dict]) -> COCO:
    """``coco_gt.loadRes`` which takes an empty list too.

    Args:
        coco_gt: The ground truth.
        predictions: Detections as COCO result dicts (``image_id``, ``category_id``, ``score``, and
            ``bbox`` as x, y, w, h in pixels or ``segmentation``). pycocotools adds fields to them.
    """
    with quiet():
        if predictions:
            return coco_gt.loadRes(predictions)
        # loadRes looks at the first detection; a detector that forgot everything has none.
        coco_dt = type(coco_gt)()
        coco_dt.dataset = {
            'images': coco_gt.dataset['images'],
            'categories': coco_gt.dataset['categories'],
            'annotations': [],
        }
        coco_dt.createIndex()
        return coco_dt


def evaluate_detections(
    coco_gt: COCO,
    coco_dt: COCO,
    cat_ids: Sequence[int],
    img_ids: Sequence[int],
    max_dets: Sequence[int] = (1, 10, MAX_DETS),
    iou_thrs: np.ndarray | None = None,
    evaluator: type[COCOeval] = COCOeval,
    kind: str = 'bbox',
) -> COCOeval:
    """Matches and accumulates once: the COCOeval from which every protocol is read.

    Args:
        coco_gt: The ground truth.
        coco_dt: The detections, see :func:`detection_index`.
        cat_ids: Categories to evaluate.
        img_ids: Images to evaluate.
        max_dets: Numbers of detections per image and class to evaluate at.
        iou_thrs: IoU thresholds, (T,); ``None`` for 0.5, 0.55, ..., 0.95.
        evaluator: The class that matches.
        kind: ``'bbox'`` or ``'segm'``: what overlaps are taken of.
    """
    coco_eval = evaluator(coco_gt, coco_dt, kind)
    coco_eval.params.catIds = list(cat_ids)
    coco_eval.params.imgIds = list(img_ids)
    coco_eval.params.maxDets = list(max_dets)
    if iou_thrs is not None:
        coco_eval.params.iouThrs = np.atleast_1d(np.asarray(iou_thrs, dtype=float))
    with quiet():
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval


def category_ap(
    coco_eval: COCOeval, iou_thr: float | None = None, area: str = 'all'
) -> dict[int, float | None]:
    """AP by category id from an accumulated COCOeval.

    AP is taken at 100 detections per image and class, as COCO defines it, or at the largest
    number evaluated if 100 is not among them.

    Args:
        coco_eval: After ``accumulate``; ``eval['precision']`` is (T, R, K, A, M): IoU
            thresholds, recalls, categories, areas, numbers of detections.
        iou_thr: One of its IoU thresholds; ``None`` averages over all.
        area: ``'all'``, ``'small'``, ``'medium'`` or ``'large'``.

    Returns:
        ``None`` for a category without ground truth (of that area), and for all of them if
        ``iou_thr`` was not evaluated.
    """
    params = coco_eval.params
    precision = coco_eval.eval['precision']
    m = params.maxDets.index(MAX_DETS) if MAX_DETS in params.maxDets else -1
    precision = precision[:, :, :, params.areaRngLbl.index(area), m]
    if iou_thr is not None:
        precision = precision[np.isclose(params.iouThrs, iou_thr)]
    # evaluate() sorts catIds, so the third axis follows params, not the caller's order.
    result: dict[int, float | None] = {}
    for k, cat_id in enumerate(params.catIds):
        # -1 marks a category without ground truth.
        values = precision[:, :, k]
        values = values[values > -1]
        result[int(cat_id)] = float(values.mean()) if values.size else None
    return result


def per_class_ap(coco_eval: COCOeval) -> CategoryAP:
    """AP and AP50 by category id from an accumulated COCOeval, all areas."""
    return CategoryAP(category_ap(coco_eval), category_ap(coco_eval, iou_thr=0.5))


def images_with(coco_gt: COCO, cat_ids: Collection[int], img_ids: Collection[int]) -> list[int]:
    """I_S: those of ``img_ids`` with an annotation of S; crowd annotations count (spec A.5)."""
    shown = set().union(*(coco_gt.catToImgs[c] for c in cat_ids if c in coco_gt.catToImgs))
    return sorted(shown & set(img_ids))


def restrict(coco_eval: COCOeval, cat_ids: Collection[int], img_ids: Collection[int]) -> COCOeval:
    """The COCOeval that an evaluation on fewer categories and images would have given.

    Nothing is matched again. All areas only, at the number of detections of
    :func:`category_ap`.

    Args:
        coco_eval: After ``evaluate``.
        cat_ids: Some of its categories.
        img_ids: Some of its images.
    """
    # _paramsEval is what evalImgs is laid out by: categories x areas x images.
    # (COCOeval.accumulate takes parameters of its own, but indexes a subset wrongly.)
    done = coco_eval._paramsEval
    num_areas, num_images = len(done.areaRng), len(done.imgIds)
    area = done.areaRngLbl.index('all')
    cats, imgs = set(cat_ids), set(img_ids)
    cat_places = [k for k, cat_id in enumerate(done.catIds) if cat_id in cats]
    img_places = [i for i, img_id in enumerate(done.imgIds) if img_id in imgs]

    part = type(coco_eval)(iouType=done.iouType)
    part.cocoGt, part.cocoDt = coco_eval.cocoGt, coco_eval.cocoDt
    part.params.catIds = [done.catIds[k] for k in cat_places]
    part.params.imgIds = [done.imgIds[i] for i in img_places]
    part.params.areaRng, part.params.areaRngLbl = [done.areaRng[area]], ['all']
    part.params.maxDets = [MAX_DETS if MAX_DETS in done.maxDets else done.maxDets[-1]]
    part.params.iouThrs, part.params.recThrs = done.iouThrs, done.recThrs
    part._paramsEval = part.params
    part.evalImgs = [
        coco_eval.evalImgs[(k * num_areas + area) * num_images + i]
        for k in cat_places
        for i in img_places
    ]
    with quiet():
        part.accumulate()
    return part


def restricted_ap(coco_eval: COCOeval, cat_ids: Collection[int]) -> CategoryAP:
    """AP of the categories of S evaluated on I_S only (spec A.5).

    False positives on images without any object of S are not seen, so that this is an upper
    bound of the AP on all images.

    Args:
        coco_eval: After ``evaluate`` on all images and categories.
        cat_ids: The set S.
    """
    img_ids = images_with(coco_eval.cocoGt, cat_ids, coco_eval._paramsEval.imgIds)
    return per_class_ap(restrict(coco_eval, cat_ids, img_ids))
