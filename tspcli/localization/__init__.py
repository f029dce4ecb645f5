"""Finding actions in untrimmed videos from their features, and measuring how well that went.

* :mod:`~tspcli.localization.metrics`: the ActivityNet protocol (mAP over tIoU; AR@AN and AUC).
* :mod:`~tspcli.localization.results`: its files; those of annotations: :mod:`tspcli.annotations`.
* :mod:`~tspcli.localization.boundary_matching`: a boundary-matching network, with its
  :mod:`~tspcli.localization.training_windows`, :mod:`~tspcli.localization.boundary_matching` and
  :mod:`~tspcli.localization.prediction`.
* :mod:`~tspcli.localization.classes`: class labels for its proposals.
* :mod:`~tspcli.localization.training`, :mod:`~tspcli.localization.prediction`: from a feature
  store to a trained network, and from there to results.

Import what you need from these modules; the metrics need numpy alone.
"""
