"""What a network has learned: metrics of a classifier, probes on frozen features, collapse, figures and reports."""

from aitom_ssl.evaluation.classification import ClassificationMetrics, classification_metrics
from aitom_ssl.evaluation.classification_report import write_classification_report
from aitom_ssl.evaluation.collapse import effective_rank, embedding_std
from aitom_ssl.evaluation.compare import Comparison, compare_encoders
from aitom_ssl.evaluation.embedding import pca, tsne
from aitom_ssl.evaluation.pretraining_report import write_pretraining_report
from aitom_ssl.evaluation.probes import (
    ProbeResult,
    extract_features,
    knn_accuracy,
    knn_predict,
    linear_probe,
    stratified_fraction,
)
from aitom_ssl.evaluation.report import Command, Highlights, Picture, Section, Table, write_report

__all__ = [
    "ClassificationMetrics",
    "Command",
    "Comparison",
    "Highlights",
    "Picture",
    "ProbeResult",
    "Section",
    "Table",
    "classification_metrics",
    "compare_encoders",
    "effective_rank",
    "embedding_std",
    "extract_features",
    "knn_accuracy",
    "knn_predict",
    "linear_probe",
    "pca",
    "stratified_fraction",
    "tsne",
    "write_classification_report",
    "write_pretraining_report",
    "write_report",
]
