"""COCOeval whose matching and accumulation run in C++, by faster-coco-eval."""

import copy
import importlib.util

from mmdet.datasets.api_wrappers import COCOeval

PACKAGE = 'faster_coco_eval'


def fast_eval_installed() -> bool:
    """Whether faster-coco-eval can be imported."""
    return importlib.util.find_spec(PACKAGE) is not None


class FastCOCOeval(COCOeval):
    """pycocotools' COCOeval of boxes and masks with faster-coco-eval inside.

    The numbers are pycocotools' up to the last bits of a float. Results per image and class stand
    in ``evalImgs`` in the same order, though not to be looked into from Python, so that
    :func:`mmforget.evaluation.restricted_coco.restrict` works on both.
    """

    def evaluate(self) -> None:
        """Matches detections to objects, for all images, classes and areas."""
        from faster_coco_eval import COCOeval_faster

        matcher = COCOeval_faster(self.cocoGt, self.cocoDt, self.params.iouType, separate_eval=True)
        for name in ('imgIds', 'catIds', 'maxDets', 'areaRng', 'areaRngLbl', 'iouThrs', 'recThrs'):
            setattr(matcher.params, name, getattr(self.params, name))
        matcher.evaluate()
        # Sorted and without repetitions by now, as pycocotools does it.
        for name in ('imgIds', 'catIds', 'maxDets'):
            setattr(self.params, name, [int(value) for value in getattr(matcher.params, name)])
        self._paramsEval = copy.deepcopy(self.params)
        self.evalImgs = matcher._evalImgs_cpp

    def accumulate(self) -> None:
        """Precision and recall from ``evalImgs`` under the parameters of the evaluation."""
        from faster_coco_eval import COCOeval_faster

        accumulator = COCOeval_faster(iouType=self.params.iouType, separate_eval=True)
        accumulator._paramsEval, accumulator._evalImgs_cpp = self._paramsEval, self.evalImgs
        accumulator.accumulate()
        self.eval = accumulator.eval
