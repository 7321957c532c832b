"""What a network has learned: metrics of a classifier, probes on frozen features, collapse, figures and reports.

Names are imported from their modules on first use: a table of numbers needs no Keras.
"""

from aitom_ssl.on_demand import on_demand

_HOMES = {
    "ClassificationMetrics": "classification",
    "Command": "report",
    "Comparison": "compare",
    "Highlights": "report",
    "Picture": "report",
    "ProbeResult": "probes",
    "Section": "report",
    "Table": "report",
    "class_activation_map": "gradcam",
    "classification_metrics": "classification",
    "cluster_scores": "few_labels",
    "compare_encoders": "compare",
    "effective_rank": "collapse",
    "embedding_std": "collapse",
    "extract_features": "probes",
    "grad_cam": "gradcam",
    "kmeans": "few_labels",
    "knn_accuracy": "probes",
    "knn_predict": "probes",
    "linear_probe": "probes",
    "pca": "embedding",
    "respond_cam": "gradcam",
    "stratified_fraction": "probes",
    "tsne": "embedding",
    "write_classification_report": "classification_report",
    "write_pretraining_report": "pretraining_report",
    "write_report": "report",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
